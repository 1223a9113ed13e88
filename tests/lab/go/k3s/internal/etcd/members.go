package etcd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const patience = 10 * time.Second

// enter adds this member as a learner and returns the initial cluster to start with. It tries until ctx ends: a cluster
// takes in one learner at a time and needs its majority for it.
func (m *Member) enter(ctx context.Context, endpoints []string) (string, error) {
	client, err := m.dial(endpoints)
	if err != nil {
		return "", err
	}
	defer client.Close()
	for {
		initial, err := m.add(ctx, client)
		if err == nil {
			return initial, nil
		}
		logrus.Infof("Waiting for other members to finish joining etcd cluster: %v", err)
		if err := pause(ctx); err != nil {
			return "", err
		}
	}
}

func (m *Member) add(ctx context.Context, client *clientv3.Client) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	found, err := client.MemberList(ctx)
	if err != nil {
		return "", err
	}
	members := found.Members
	own := func(member *etcdserverpb.Member) bool { return slices.Contains(member.PeerURLs, m.peerURL()) }
	if i := slices.IndexFunc(members, own); i >= 0 && members[i].Name != "" {
		// The place of a machine that was reinstalled under the same address: its data is gone.
		logrus.Infof("Removing etcd member %s: its place is taken by %s", members[i].Name, m.name)
		if _, err := client.MemberRemove(ctx, members[i].ID); err != nil {
			return "", err
		}
		members = slices.Delete(members, i, i+1)
	}
	if !slices.ContainsFunc(members, own) {
		added, err := client.MemberAddAsLearner(ctx, []string{m.peerURL()})
		if err != nil {
			return "", err
		}
		members = added.Members
	}
	var initial []string
	for _, member := range members {
		name := member.Name
		if own(member) {
			name = m.name
		}
		if name == "" {
			return "", errors.New("another member is about to join")
		}
		for _, url := range member.PeerURLs {
			initial = append(initial, name+"="+url)
		}
	}
	return strings.Join(initial, ","), nil
}

// settle waits until the member answers, is no learner any more, and is known under its present peer URL.
func (m *Member) settle(ctx context.Context) error {
	for told := ""; ; {
		err := m.settled(ctx)
		if err == nil {
			return nil
		}
		if told != err.Error() {
			told = err.Error()
			logrus.Infof("Waiting for etcd: %v", err)
		}
		select {
		case <-m.Stopped():
			return errors.New("etcd stopped: this member was removed from the cluster, or cannot run")
		case err := <-m.Err():
			return fmt.Errorf("etcd: %w", err)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retry / 4):
		}
	}
}

func (m *Member) settled(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	status, err := m.Client.Status(ctx, Endpoint)
	if err != nil {
		return err
	}
	if status.IsLearner {
		return m.promote(ctx, status.Header.MemberId)
	}
	if _, err := m.Client.Get(ctx, "health"); err != nil {
		return err
	}
	found, err := m.Client.MemberList(ctx)
	if err != nil {
		return err
	}
	for _, member := range found.Members {
		if member.ID == status.Header.MemberId && !slices.Equal(member.PeerURLs, []string{m.peerURL()}) {
			// cluster-init was added, or the node's address changed.
			_, err := m.Client.MemberUpdate(ctx, member.ID, []string{m.peerURL()})
			return err
		}
	}
	return nil
}

// promote asks a voting member, as a learner may not decide on itself.
func (m *Member) promote(ctx context.Context, id uint64) error {
	var endpoints []string
	for _, member := range m.server.Server.Cluster().Members() {
		if uint64(member.ID) != id {
			endpoints = append(endpoints, member.ClientURLs...)
		}
	}
	if len(endpoints) == 0 {
		return errors.New("no other member is known yet")
	}
	client, err := m.dial(endpoints)
	if err != nil {
		return err
	}
	defer client.Close()
	if _, err := client.MemberPromote(ctx, id); err != nil && !errors.Is(err, rpctypes.ErrMemberNotLearner) {
		return err
	}
	logrus.Infof("etcd member %s is promoted from learner", m.name)
	return nil
}

// ClientURLs of all members, for a server that wants to join.
func (m *Member) ClientURLs() []string {
	var urls []string
	for _, member := range m.server.Server.Cluster().Members() {
		urls = append(urls, member.ClientURLs...)
	}
	slices.Sort(urls)
	return urls
}

// Remove takes a member out of the cluster; one that is not in it is no error.
func (m *Member) Remove(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	found, err := m.Client.MemberList(ctx)
	if err != nil {
		return err
	}
	for _, member := range found.Members {
		if member.Name != name {
			continue
		}
		logrus.Infof("Removing name=%s id=%x from etcd", name, member.ID)
		if _, err := m.Client.MemberRemove(ctx, member.ID); err != nil && !errors.Is(err, rpctypes.ErrMemberNotFound) {
			return err
		}
	}
	return nil
}

// Snapshot writes the database to a file: all of it or nothing.
func (m *Member) Snapshot(ctx context.Context, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	stream, err := m.Client.Snapshot(ctx)
	if err != nil {
		return err
	}
	defer stream.Close()
	draft, err := os.OpenFile(path+".part", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = draft.ReadFrom(stream)
	if err := errors.Join(err, draft.Close()); err != nil {
		return errors.Join(err, os.Remove(draft.Name()))
	}
	return os.Rename(draft.Name(), path)
}
