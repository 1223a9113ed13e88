package policy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"sort"
	"strings"
	"time"

	log "github.com/sirupsen/logrus"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

const (
	gather = 100 * time.Millisecond // changes that come together are one
	again  = 30 * time.Second       // what someone else undid is put back
)

// Run keeps the rules for the pods of a node until ctx ends. They stay then, as the pods do. It returns once the rules
// are there for the first time.
func Run(ctx context.Context, kube kubernetes.Interface, node string) error {
	factory := informers.NewSharedInformerFactory(kube, 0)
	pods, namespaces := factory.Core().V1().Pods(), factory.Core().V1().Namespaces()
	policies := factory.Networking().V1().NetworkPolicies()
	changed := make(chan struct{}, 1)
	note := func() {
		select {
		case changed <- struct{}{}:
		default: // one is noted already
		}
	}
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { note() }, UpdateFunc: func(any, any) { note() }, DeleteFunc: func(any) { note() },
	}
	for _, informer := range []cache.SharedIndexInformer{pods.Informer(), namespaces.Informer(), policies.Informer()} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return err
		}
	}
	factory.Start(ctx.Done())
	for kind, ok := range factory.WaitForCacheSync(ctx.Done()) {
		if !ok {
			return fmt.Errorf("network policies: %v are not to be had: %w", kind, context.Cause(ctx))
		}
	}
	sync := func() error {
		world := World{Node: node}
		var errs [3]error
		world.Pods, errs[0] = pods.Lister().List(labels.Everything())
		world.Namespaces, errs[1] = namespaces.Lister().List(labels.Everything())
		world.Policies, errs[2] = policies.Lister().List(labels.Everything())
		if err := errors.Join(errs[:]...); err != nil {
			return err
		}
		return apply(ctx, world.Chains())
	}
	if err := sync(); err != nil {
		return fmt.Errorf("network policies: %w", err)
	}
	go loop(ctx, changed, sync)
	return nil
}

func loop(ctx context.Context, changed <-chan struct{}, sync func() error) {
	tick := time.NewTicker(again)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-changed:
			select {
			case <-ctx.Done():
				return
			case <-time.After(gather):
			}
		}
		if err := sync(); err != nil && ctx.Err() == nil {
			log.Errorf("Network policies: %v; tried again in %s", err, again)
		}
	}
}

// apply replaces all chains of this package in one step, and then makes sure that traffic comes through them.
func apply(ctx context.Context, chains map[string][]string) error {
	before, err := run(ctx, nil, "iptables-save", "-t", "filter")
	if err != nil {
		return err
	}
	if _, err := run(ctx, script(chains, string(before)), "iptables-restore", "-w", "5", "--noflush"); err != nil {
		return err
	}
	jump := []string{"FORWARD", "-m", "comment", "--comment", "network policies", "-j", top}
	if _, err := run(ctx, nil, "iptables", append([]string{"-w", "5", "-C"}, jump...)...); err == nil {
		return nil
	}
	_, err = run(ctx, nil, "iptables", append([]string{"-w", "5", "-I"}, jump...)...)
	return err
}

// script is iptables-restore's input; chains of before that are wanted no more go.
func script(chains map[string][]string, before string) []byte {
	var text bytes.Buffer
	text.WriteString("*filter\n")
	names := make([]string, 0, len(chains))
	for name := range chains {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		fmt.Fprintf(&text, ":%s - [0:0]\n", name)
	}
	var stale []string
	for _, line := range strings.Split(before, "\n") {
		name, _, _ := strings.Cut(strings.TrimPrefix(line, ":"), " ")
		if _, wanted := chains[name]; strings.HasPrefix(line, ":"+prefix) && !wanted {
			stale = append(stale, name)
			fmt.Fprintf(&text, ":%s - [0:0]\n", name)
		}
	}
	for _, name := range names {
		for _, rule := range chains[name] {
			fmt.Fprintf(&text, "-A %s %s\n", name, rule)
		}
	}
	for _, name := range stale {
		fmt.Fprintf(&text, "-X %s\n", name)
	}
	text.WriteString("COMMIT\n")
	return text.Bytes()
}

func run(ctx context.Context, input []byte, name string, args ...string) ([]byte, error) {
	command := exec.CommandContext(ctx, name, args...)
	command.Stdin = bytes.NewReader(input)
	var said bytes.Buffer
	command.Stderr = &said
	out, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(said.String()))
	}
	return out, nil
}
