package node

import (
	"context"
	"net"
	"strconv"
	"time"

	log "github.com/sirupsen/logrus"
	discovery "k8s.io/api/discovery/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"qwex.lab/k3s/internal/lb"
)

// follow hands the API servers behind the service `kubernetes` to the load balancer, whenever they change, until ctx ends.
func follow(ctx context.Context, kube kubernetes.Interface, balancer *lb.Balancer) error {
	factory := informers.NewSharedInformerFactoryWithOptions(kube, time.Minute, informers.WithNamespace("default"),
		informers.WithTweakListOptions(func(options *meta.ListOptions) {
			options.LabelSelector = discovery.LabelServiceName + "=kubernetes"
		}))
	slices := factory.Discovery().V1().EndpointSlices()
	update := func(any) {
		found, err := slices.Lister().List(labels.Everything())
		if err == nil {
			err = balancer.Update(apiServers(found))
		}
		if err != nil {
			log.Warnf("Load balancer: %v", err)
		}
	}
	_, err := slices.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: update, UpdateFunc: func(_, now any) { update(now) }, DeleteFunc: update,
	})
	if err != nil {
		return err
	}
	factory.Start(ctx.Done())
	return nil
}

// apiServers as host:port.
func apiServers(slices []*discovery.EndpointSlice) []string {
	var list []string
	for _, slice := range slices {
		for _, port := range slice.Ports {
			if port.Port == nil {
				continue
			}
			for _, endpoint := range slice.Endpoints {
				for _, address := range endpoint.Addresses {
					list = append(list, net.JoinHostPort(address, strconv.Itoa(int(*port.Port))))
				}
			}
		}
	}
	return list
}
