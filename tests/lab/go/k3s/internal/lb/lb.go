// Package lb is an agent's load balancer: one port on loopback for all of the cluster's API servers.
package lb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	log "github.com/sirupsen/logrus"
)

// Address is where an agent's components find the API.
const Address = "127.0.0.1:6444"

const (
	dialPatience = 5 * time.Second
	checkEvery   = 2 * time.Second
	failures     = 2 // checks in a row after which a server's connections are cut
)

// Balancer passes every connection to a server that answers: the one that served last, as long as it does.
type Balancer struct {
	fallback string // the server the agent joined through: tried last, never forgotten
	file     string // where the list outlives the process
	listener net.Listener

	mu      sync.Mutex
	servers []string // the preferred one first
	open    map[net.Conn]string
	failed  map[string]int
}

// state is the file's form, as k3s names its fields.
type state struct {
	ServerURL       string   `json:"ServerURL"`
	ServerAddresses []string `json:"ServerAddresses"`
}

// New listens on address. The servers known before, from file, come first; fallback is host:port of the joined one.
func New(address, fallback, file string) (*Balancer, error) {
	b := &Balancer{fallback: fallback, file: file, open: map[net.Conn]string{}, failed: map[string]int{}}
	var before state
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &before)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		log.Warnf("Load balancer list %s is of no use and starts anew: %v", file, err)
		before = state{}
	}
	if before.ServerURL == "https://"+fallback { // joined elsewhere since: another cluster's servers are no use
		b.servers = before.ServerAddresses
	}
	b.listener, err = net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("load balancer: %w", err)
	}
	log.Infof("Running load balancer k3s-agent-load-balancer %s -> %v [default: %s]", address, b.servers, fallback)
	return b, nil
}

// Update makes servers (host:port) the whole list and keeps it on disk. An empty list changes nothing.
func (b *Balancer) Update(servers []string) error {
	servers = slices.Compact(slices.Sorted(slices.Values(servers)))
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(servers) == 0 || slices.Equal(servers, slices.Sorted(slices.Values(b.servers))) {
		return nil
	}
	if len(b.servers) > 0 { // the one in use stays in front
		if at := slices.Index(servers, b.servers[0]); at > 0 {
			servers = slices.Insert(slices.Delete(servers, at, at+1), 0, b.servers[0])
		}
	}
	b.servers = servers
	log.Infof("Updated load balancer k3s-agent-load-balancer server addresses -> %v [default: %s]", servers, b.fallback)
	for connection, server := range b.open {
		if server != b.fallback && !slices.Contains(servers, server) {
			_ = connection.Close() // its two copying goroutines report nothing either
		}
	}
	return b.save()
}

func (b *Balancer) save() error {
	text, err := json.MarshalIndent(state{"https://" + b.fallback, b.servers}, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(b.file), 0o700); err != nil {
		return err
	}
	draft := b.file + ".new"
	if err := os.WriteFile(draft, text, 0o600); err != nil {
		return err
	}
	return os.Rename(draft, b.file)
}

// Run serves until ctx ends.
func (b *Balancer) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = b.listener.Close() })
	defer stop()
	go b.check(ctx)
	for {
		client, err := b.listener.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("load balancer: %w", err)
		}
		go b.serve(ctx, client)
	}
}

func (b *Balancer) candidates() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := slices.Clone(b.servers)
	if !slices.Contains(list, b.fallback) {
		list = append(list, b.fallback)
	}
	// Servers that fail their checks come last, in their order.
	slices.SortStableFunc(list, func(one, other string) int {
		return min(b.failed[one], failures) - min(b.failed[other], failures)
	})
	return list
}

func (b *Balancer) serve(ctx context.Context, client net.Conn) {
	defer client.Close()
	dialer := net.Dialer{Timeout: dialPatience, KeepAlive: 15 * time.Second}
	for _, server := range b.candidates() {
		upstream, err := dialer.DialContext(ctx, "tcp", server)
		if err != nil {
			log.Warnf("Load balancer failed to dial server %s: %v", server, err)
			continue
		}
		b.prefer(server)
		b.carry(client, upstream, server)
		return
	}
	log.Error("Load balancer: all servers failed")
}

// prefer puts a server that answered in front.
func (b *Balancer) prefer(server string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if at := slices.Index(b.servers, server); at > 0 {
		b.servers = slices.Insert(slices.Delete(b.servers, at, at+1), 0, server)
	}
}

// carry copies both ways until either side ends, or the server is given up.
func (b *Balancer) carry(client, upstream net.Conn, server string) {
	b.mu.Lock()
	b.open[upstream] = server
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		delete(b.open, upstream)
		b.mu.Unlock()
		_ = upstream.Close()
	}()
	ended := make(chan struct{}, 2)
	pass := func(to, from net.Conn) {
		_, _ = io.Copy(to, from) // either side's end, however it came, is the end of both
		ended <- struct{}{}
	}
	go pass(upstream, client)
	go pass(client, upstream)
	<-ended
}

// check dials the servers in use now and then: a machine that lost its power ends no connection, so they are cut here.
func (b *Balancer) check(ctx context.Context) {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var all sync.WaitGroup
		for _, server := range b.candidates() {
			all.Add(1)
			go func() {
				defer all.Done()
				b.note(server, dial(ctx, server))
			}()
		}
		all.Wait()
	}
}

func dial(ctx context.Context, server string) error {
	dialer := net.Dialer{Timeout: checkEvery}
	connection, err := dialer.DialContext(ctx, "tcp", server)
	if err != nil {
		return err
	}
	return connection.Close()
}

func (b *Balancer) note(server string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil {
		delete(b.failed, server)
		return
	}
	b.failed[server]++
	if b.failed[server] != failures {
		return
	}
	log.Warnf("Load balancer server %s failed %d health checks: %v", server, failures, err)
	for connection, owner := range b.open {
		if owner == server {
			_ = connection.Close() // see Update
		}
	}
}
