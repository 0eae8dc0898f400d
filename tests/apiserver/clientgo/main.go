// A controller as client-go programs are: discovery, typed and dynamic clients, informers, a work queue, leader election and
// server-side apply. It works in the namespace it makes and prints what it found as JSON, for a test to judge.
//
// usage: program KUBECONFIG
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/pager"
	"k8s.io/client-go/util/retry"
	"k8s.io/client-go/util/workqueue"
)

const namespace = "clientgo"

var (
	definitions = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	gadgets     = schema.GroupVersionResource{Group: "go.example.com", Version: "v1", Resource: "gadgets"}
	gadgetKind  = schema.GroupKind{Group: "go.example.com", Kind: "Gadget"}
)

// must ends the program: the test shows what it says.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

func made[T any](value T, err error) T {
	must(err)
	return value
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	config := made(clientcmd.BuildConfigFromFlags("", os.Args[1]))
	config.QPS, config.Burst = 1000, 1000
	protobuf := rest.CopyConfig(config)
	protobuf.ContentType = runtime.ContentTypeProtobuf
	protobuf.AcceptContentTypes = runtime.ContentTypeProtobuf // and nothing else: answers, lists and watches come in it
	typed := made(kubernetes.NewForConfig(protobuf))
	_, err := typed.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	must(err)
	told := map[string]any{
		"typed":    typedClient(ctx, typed),
		"informer": informer(ctx, typed),
		"election": election(ctx, typed),
		"apply":    apply(ctx, typed),
		"custom":   custom(ctx, config, typed),
		"metadata": metadataOnly(ctx, config),
	}
	must(json.NewEncoder(os.Stdout).Encode(told))
}

// typedClient walks the errors a program tells apart, a retried conflict, and a list in pages.
func typedClient(ctx context.Context, typed kubernetes.Interface) map[string]any {
	told := map[string]any{}
	maps := typed.CoreV1().ConfigMaps(namespace)
	for at := range 7 {
		_, err := maps.Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("page-%d", at), Labels: map[string]string{"set": "pages"}},
			BinaryData: map[string][]byte{"bytes": {0, 255, byte(at)}},
		}, metav1.CreateOptions{FieldManager: "go"})
		must(err)
	}
	requests, found := 0, []int{}
	pages := pager.New(func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		requests++
		return maps.List(ctx, options)
	})
	pages.PageSize = 3
	must(pages.EachListItem(ctx, metav1.ListOptions{LabelSelector: "set=pages"}, func(each runtime.Object) error {
		found = append(found, int(each.(*corev1.ConfigMap).BinaryData["bytes"][2]))
		return nil
	}))
	told["pages"], told["requests"] = found, requests

	_, err := maps.Get(ctx, "nothing", metav1.GetOptions{})
	told["notFound"] = apierrors.IsNotFound(err)
	_, err = maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "page-0"}}, metav1.CreateOptions{})
	told["alreadyExists"] = apierrors.IsAlreadyExists(err)
	_, err = maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "Not_A_Name"}}, metav1.CreateOptions{})
	status, _ := err.(apierrors.APIStatus)
	told["invalid"] = apierrors.IsInvalid(err)
	told["field"] = status.Status().Details.Causes[0].Field

	stale := made(maps.Get(ctx, "page-1", metav1.GetOptions{}))
	fresh := stale.DeepCopy()
	fresh.Data = map[string]string{"by": "other"}
	_, err = maps.Update(ctx, fresh, metav1.UpdateOptions{})
	must(err)
	tries := 0
	must(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		tries++
		current := stale
		if tries > 1 {
			current = made(maps.Get(ctx, "page-1", metav1.GetOptions{}))
		}
		current.Labels["tried"] = "yes"
		_, err := maps.Update(ctx, current, metav1.UpdateOptions{})
		return err
	}))
	told["conflictTries"] = tries
	after := made(maps.Get(ctx, "page-1", metav1.GetOptions{}))
	told["keptData"] = after.Data["by"]
	patched := made(maps.Patch(ctx, "page-2", types.StrategicMergePatchType, []byte(`{"data":{"x":"y"}}`), metav1.PatchOptions{}))
	told["patched"] = patched.Data["x"]
	must(maps.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "set=pages"}))
	left := made(maps.List(ctx, metav1.ListOptions{LabelSelector: "set=pages"}))
	told["left"] = len(left.Items)
	return told
}

// informer hands keys from a shared informer to a rate-limited queue, as a controller does, and reads through the lister.
func informer(ctx context.Context, typed kubernetes.Interface) map[string]any {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	factory := informers.NewSharedInformerFactoryWithOptions(typed, 0, informers.WithNamespace(namespace),
		informers.WithTweakListOptions(func(options *metav1.ListOptions) { options.LabelSelector = "set=watched" }))
	watched := factory.Core().V1().ConfigMaps()
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[string]())
	events := map[string]int{}
	var lock sync.Mutex
	enqueue := func(event string, object any) {
		lock.Lock()
		events[event]++
		lock.Unlock()
		queue.Add(made(cache.DeletionHandlingMetaNamespaceKeyFunc(object)))
	}
	maps := typed.CoreV1().ConfigMaps(namespace)
	create := func(name string) *corev1.ConfigMap {
		return made(maps.Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"set": "watched"}},
		}, metav1.CreateOptions{}))
	}
	create("before")
	made(watched.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { enqueue("add", object) },
		UpdateFunc: func(_, object any) { enqueue("update", object) },
		DeleteFunc: func(object any) { enqueue("delete", object) },
	}))
	factory.Start(ctx.Done())
	synced := factory.WaitForCacheSync(ctx.Done())
	reconciled := make(chan struct{}, 100)
	go func() {
		for {
			key, shutdown := queue.Get()
			if shutdown {
				return
			}
			space, name, _ := cache.SplitMetaNamespaceKey(key)
			object, err := watched.Lister().ConfigMaps(space).Get(name)
			if err == nil && object.Data["seen"] == "" {
				object = object.DeepCopy()
				object.Data = map[string]string{"seen": "yes"}
				if _, err := maps.Update(ctx, object, metav1.UpdateOptions{}); err != nil {
					queue.AddRateLimited(key)
				} else {
					queue.Forget(key)
					reconciled <- struct{}{}
				}
			}
			queue.Done(key)
		}
	}()
	for _, name := range []string{"one", "two"} {
		create(name)
	}
	for range 3 {
		select {
		case <-reconciled:
		case <-ctx.Done():
			panic("the controller did not come to its end")
		}
	}
	must(maps.Delete(ctx, "two", metav1.DeleteOptions{}))
	must(wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, 10*time.Second, true, func(context.Context) (bool, error) {
		lock.Lock()
		defer lock.Unlock()
		return events["delete"] == 1 && events["update"] >= 3, nil
	}))
	queue.ShutDown()
	names := watched.Informer().GetStore().ListKeys()
	sort.Strings(names)
	lock.Lock()
	defer lock.Unlock()
	return map[string]any{"synced": len(synced) == 1, "events": events, "names": names}
}

// election lets a second candidate follow the first one, who lets go.
func election(ctx context.Context, typed kubernetes.Interface) map[string]any {
	order, followed := make(chan string, 10), make(chan string, 10)
	candidate := func(ctx context.Context, identity string) {
		lock := made(resourcelock.New(resourcelock.LeasesResourceLock, namespace, "leader", typed.CoreV1(), typed.CoordinationV1(),
			resourcelock.ResourceLockConfig{Identity: identity}))
		leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
			Lock: lock, LeaseDuration: 2 * time.Second, RenewDeadline: time.Second, RetryPeriod: 100 * time.Millisecond, ReleaseOnCancel: true,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(context.Context) { order <- identity },
				OnStoppedLeading: func() {},
				OnNewLeader: func(leader string) {
					if leader != identity {
						followed <- leader
					}
				},
			},
		})
	}
	first, release := context.WithCancel(ctx)
	second, end := context.WithCancel(ctx)
	defer end()
	go candidate(first, "first")
	leaders := []string{<-order}
	go candidate(second, "second")
	follows := <-followed
	leases := typed.CoordinationV1().Leases(namespace)
	// Let go between two renewals: a cancelled one would leave the holder with an old version of the lease.
	must(wait.PollUntilContextTimeout(ctx, 5*time.Millisecond, 10*time.Second, true, func(ctx context.Context) (bool, error) {
		lease, err := leases.Get(ctx, "leader", metav1.GetOptions{})
		return err == nil && lease.Spec.RenewTime.After(lease.Spec.AcquireTime.Time), err
	}))
	release()
	leaders = append(leaders, <-order)
	lease := made(leases.Get(ctx, "leader", metav1.GetOptions{}))
	return map[string]any{"follows": follows, "leaders": leaders, "holder": *lease.Spec.HolderIdentity, "transitions": *lease.Spec.LeaseTransitions}
}

// apply lets two managers own fields of one object.
func apply(ctx context.Context, typed kubernetes.Interface) map[string]any {
	maps := typed.CoreV1().ConfigMaps(namespace)
	wanted := func(value string) *applycorev1.ConfigMapApplyConfiguration {
		return applycorev1.ConfigMap("applied", namespace).WithData(map[string]string{"owned": value})
	}
	made(maps.Apply(ctx, wanted("a"), metav1.ApplyOptions{FieldManager: "first"}))
	_, err := maps.Apply(ctx, wanted("b"), metav1.ApplyOptions{FieldManager: "second"})
	forced := made(maps.Apply(ctx, wanted("b"), metav1.ApplyOptions{FieldManager: "second", Force: true}))
	extracted := made(applycorev1.ExtractConfigMap(forced, "second"))
	given := made(maps.Apply(ctx, applycorev1.ConfigMap("applied", namespace), metav1.ApplyOptions{FieldManager: "second"}))
	return map[string]any{
		"conflict": apierrors.IsConflict(err), "value": forced.Data["owned"], "extracted": extracted.Data["owned"], "afterwards": len(given.Data),
	}
}

// custom makes a kind, finds it by discovery, and follows its objects with the dynamic client.
func custom(ctx context.Context, config *rest.Config, typed kubernetes.Interface) map[string]any {
	told := map[string]any{}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(typed.Discovery()))
	_, err := mapper.RESTMapping(gadgetKind)
	told["noMatch"] = meta.IsNoMatchError(err)
	deployment := made(mapper.RESTMapping(schema.GroupKind{Group: "apps", Kind: "Deployment"}))
	told["deployment"] = deployment.Resource.Resource + "." + deployment.Resource.Version + "." + string(deployment.Scope.Name())
	client := made(dynamic.NewForConfig(config))
	text := map[string]any{"type": "string"}
	definition := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": map[string]any{"name": "gadgets.go.example.com"},
		"spec": map[string]any{
			"group": "go.example.com", "scope": "Namespaced",
			"names": map[string]any{"plural": "gadgets", "kind": "Gadget"},
			"versions": []any{map[string]any{
				"name": "v1", "served": true, "storage": true, "subresources": map[string]any{"status": map[string]any{}},
				"schema": map[string]any{"openAPIV3Schema": map[string]any{"type": "object", "properties": map[string]any{
					"spec":   map[string]any{"type": "object", "properties": map[string]any{"color": text}},
					"status": map[string]any{"type": "object", "properties": map[string]any{"seen": text}},
				}}},
			}},
		},
	}}
	made(client.Resource(definitions).Create(ctx, definition, metav1.CreateOptions{}))
	must(wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, 10*time.Second, true, func(ctx context.Context) (bool, error) {
		current, err := client.Resource(definitions).Get(ctx, "gadgets.go.example.com", metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		conditions, _, _ := unstructured.NestedSlice(current.Object, "status", "conditions")
		for _, each := range conditions {
			condition := each.(map[string]any)
			if condition["type"] == "Established" && condition["status"] == "True" {
				return true, nil
			}
		}
		return false, nil
	}))
	mapper.Reset()
	mapping := made(mapper.RESTMapping(gadgetKind))
	told["mapped"] = mapping.Resource == gadgets

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	factory := dynamicinformer.NewFilteredDynamicSharedInformerFactory(client, 0, namespace, nil)
	seen := make(chan string, 10)
	status := func(object any) string {
		text, _, _ := unstructured.NestedString(object.(*unstructured.Unstructured).Object, "status", "seen")
		return text
	}
	made(factory.ForResource(gadgets).Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { seen <- "add" + status(object) },
		UpdateFunc: func(_, object any) { seen <- "update" + status(object) },
		DeleteFunc: func(object any) { seen <- "delete" + status(object) },
	}))
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	things := client.Resource(gadgets).Namespace(namespace)
	gadget := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "go.example.com/v1", "kind": "Gadget", "metadata": map[string]any{"name": "one"},
		"spec": map[string]any{"color": "red"}, "status": map[string]any{"seen": "-too-early"},
	}}
	current := made(things.Create(ctx, gadget, metav1.CreateOptions{}))
	must(unstructured.SetNestedField(current.Object, "-yes", "status", "seen"))
	must(unstructured.SetNestedField(current.Object, "blue", "spec", "color"))
	made(things.UpdateStatus(ctx, current, metav1.UpdateOptions{}))
	must(things.Delete(ctx, "one", metav1.DeleteOptions{}))
	events := []string{}
	for range 3 {
		select {
		case event := <-seen:
			events = append(events, event)
		case <-ctx.Done():
			panic("events of gadgets are missing")
		}
	}
	told["events"] = events
	return told
}

// metadataOnly asks for PartialObjectMetadata.
func metadataOnly(ctx context.Context, config *rest.Config) map[string]any {
	client := made(metadata.NewForConfig(config))
	list := made(client.Resource(corev1.SchemeGroupVersion.WithResource("configmaps")).Namespace(namespace).List(ctx,
		metav1.ListOptions{LabelSelector: "set=watched"}))
	names := []string{}
	for _, each := range list.Items {
		names = append(names, each.Name)
	}
	return map[string]any{"names": names}
}
