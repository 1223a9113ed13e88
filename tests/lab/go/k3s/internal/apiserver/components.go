package apiserver

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/sirupsen/logrus"

	"qwex.lab/k3s/internal/config"
	"qwex.lab/k3s/internal/node/child"
)

// restart is how long a component that ended stays down; losing its leader's lease is a reason to end.
const restart = 2 * time.Second

// Components runs the controller manager and the scheduler until ctx ends and they have ended too. One that dies is
// started again.
func Components(ctx context.Context, c *config.Config) {
	done := make(chan struct{})
	lines := [][]string{
		append([]string{"kube-controller-manager"}, arguments(controllerArguments(c), c.ControllerArgs)...),
		append([]string{"kube-scheduler"}, arguments(schedulerArguments(c), c.SchedulerArgs)...),
	}
	for _, line := range lines {
		go func() {
			keep(ctx, line)
			done <- struct{}{}
		}()
	}
	for range lines {
		<-done
	}
}

func keep(ctx context.Context, line []string) {
	for ctx.Err() == nil {
		logrus.Infof("Running %v", line)
		if err := once(ctx, line); err != nil {
			logrus.Errorf("%v; starting it again in %s", err, restart)
		}
		select {
		case <-ctx.Done():
		case <-time.After(restart):
		}
	}
}

func once(ctx context.Context, line []string) error {
	self, err := child.Self()
	if err != nil {
		return err
	}
	running, err := child.Start(line[0], append([]string{self}, line...), []string{"GOGC=50"}, os.Stderr)
	if err != nil {
		return err
	}
	return running.Wait(ctx)
}

func controllerArguments(c *config.Config) []string {
	tls := func(name string) string { return c.Dir("server/tls", name) }
	kubeconfig := c.Dir("server/cred/controller.kubeconfig")
	all := []string{
		"allocate-node-cidrs=true",
		"authentication-kubeconfig=" + kubeconfig,
		"authorization-kubeconfig=" + kubeconfig,
		"bind-address=127.0.0.1",
		"cluster-cidr=" + c.ClusterCIDR,
		"configure-cloud-routes=false",
		"controllers=*,tokencleaner",
		"kubeconfig=" + kubeconfig,
		fmt.Sprintf("leader-elect=%t", c.Clustered()),
		"profiling=false",
		"root-ca-file=" + tls("server-ca.crt"),
		"service-account-private-key-file=" + tls("service.key"),
		"service-cluster-ip-range=" + c.ServiceCIDR,
		"use-service-account-credentials=true",
	}
	for _, signer := range []string{"kube-apiserver-client", "kubelet-client"} {
		all = append(all,
			"cluster-signing-"+signer+"-cert-file="+tls("client-ca.crt"), "cluster-signing-"+signer+"-key-file="+tls("client-ca.key"))
	}
	for _, signer := range []string{"kubelet-serving", "legacy-unknown"} {
		all = append(all,
			"cluster-signing-"+signer+"-cert-file="+tls("server-ca.crt"), "cluster-signing-"+signer+"-key-file="+tls("server-ca.key"))
	}
	return all
}

func schedulerArguments(c *config.Config) []string {
	kubeconfig := c.Dir("server/cred/scheduler.kubeconfig")
	return []string{
		"authentication-kubeconfig=" + kubeconfig,
		"authorization-kubeconfig=" + kubeconfig,
		"bind-address=127.0.0.1",
		"kubeconfig=" + kubeconfig,
		fmt.Sprintf("leader-elect=%t", c.Clustered()),
		"profiling=false",
	}
}
