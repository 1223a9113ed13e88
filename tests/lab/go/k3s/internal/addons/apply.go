package addons

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
)

const manager = "deploy@k3s"

// applier does what kubectl apply --server-side does.
type applier struct {
	client dynamic.Interface
	mapper *restmapper.DeferredDiscoveryRESTMapper
}

func newApplier(settings *rest.Config) (*applier, error) {
	web, err := rest.HTTPClientFor(settings)
	if err != nil {
		return nil, err
	}
	found, err := discovery.NewDiscoveryClientForConfigAndClient(settings, web)
	if err != nil {
		return nil, err
	}
	client, err := dynamic.NewForConfigAndClient(settings, (*http.Client)(web))
	if err != nil {
		return nil, err
	}
	return &applier{client, restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(found))}, nil
}

// apply makes every object of a file what the file says. It goes on after an error and returns all of them.
func (a *applier) apply(ctx context.Context, text []byte) error {
	return a.each(text, func(object *unstructured.Unstructured, to dynamic.ResourceInterface) error {
		_, err := to.Apply(ctx, object.GetName(), object, metav1.ApplyOptions{FieldManager: manager, Force: true})
		return err
	})
}

// remove deletes every object of a file that is there.
func (a *applier) remove(ctx context.Context, text []byte) error {
	background := metav1.DeletePropagationBackground
	return a.each(text, func(object *unstructured.Unstructured, from dynamic.ResourceInterface) error {
		err := from.Delete(ctx, object.GetName(), metav1.DeleteOptions{PropagationPolicy: &background})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	})
}

func (a *applier) each(text []byte, do func(*unstructured.Unstructured, dynamic.ResourceInterface) error) error {
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	var failed []error
	for {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(object); errors.Is(err, io.EOF) {
			return errors.Join(failed...)
		} else if err != nil {
			return errors.Join(append(failed, err)...)
		}
		if len(object.Object) == 0 {
			continue
		}
		target, err := a.target(object)
		if err == nil {
			err = do(object, target)
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err))
		}
	}
}

func (a *applier) target(object *unstructured.Unstructured) (dynamic.ResourceInterface, error) {
	kind := object.GroupVersionKind()
	mapping, err := a.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if meta.IsNoMatchError(err) {
		a.mapper.Reset() // its definition may have come since
		mapping, err = a.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	}
	if err != nil {
		return nil, err
	}
	resource := a.client.Resource(mapping.Resource)
	if mapping.Scope.Name() != meta.RESTScopeNameNamespace {
		return resource, nil
	}
	if object.GetNamespace() == "" {
		object.SetNamespace(metav1.NamespaceDefault)
	}
	return resource.Namespace(object.GetNamespace()), nil
}
