// Package check_test holds the manifests to the schemas of Kubernetes. It is a
// module of its own: what it needs is no dependency of Postroad.
package check_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resource"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/kustomize/kyaml/openapi"
	kyaml "sigs.k8s.io/kustomize/kyaml/yaml"
	"sigs.k8s.io/yaml"
)

// kinds are the types that each kind is decoded into; another kind has to be
// entered first.
var kinds = map[string]func() any{
	"v1 Namespace":                       func() any { return &corev1.Namespace{} },
	"v1 ServiceAccount":                  func() any { return &corev1.ServiceAccount{} },
	"v1 ConfigMap":                       func() any { return &corev1.ConfigMap{} },
	"v1 Service":                         func() any { return &corev1.Service{} },
	"apps/v1 Deployment":                 func() any { return &appsv1.Deployment{} },
	"batch/v1 Job":                       func() any { return &batchv1.Job{} },
	"policy/v1 PodDisruptionBudget":      func() any { return &policyv1.PodDisruptionBudget{} },
	"networking.k8s.io/v1 NetworkPolicy": func() any { return &networkingv1.NetworkPolicy{} },
	"networking.k8s.io/v1 Ingress":       func() any { return &networkingv1.Ingress{} },
}

// manifests are what kustomize makes of a folder, decoded.
type manifests struct {
	counts   map[string]int
	pods     map[string]corev1.PodTemplateSpec // by the component
	services []*corev1.Service
	selects  map[string]map[string]string // who selects pods, by which labels
	configs  []string
}

func build(t *testing.T, folder string) *manifests {
	t.Helper()
	all, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), folder)
	if err != nil {
		t.Fatalf("build %s: %v", folder, err)
	}
	m := &manifests{counts: map[string]int{}, pods: map[string]corev1.PodTemplateSpec{}, selects: map[string]map[string]string{}}
	for _, r := range all.Resources() {
		m.add(t, r)
	}
	return m
}

func (m *manifests) add(t *testing.T, r *resource.Resource) {
	t.Helper()
	kind := r.GetApiVersion() + " " + r.GetKind()
	name := r.GetKind() + " " + r.GetName()
	m.counts[r.GetKind()]++
	if kinds[kind] == nil {
		t.Fatalf("%s: no type for %s", name, kind)
	}
	text, err := r.AsYAML()
	if err != nil {
		t.Fatal(err)
	}
	object := kinds[kind]()
	if err := yaml.UnmarshalStrict(text, object); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	for _, fault := range missing(t, r, text) {
		t.Errorf("%s: %s", name, fault)
	}
	if r.GetKind() != "Namespace" && r.GetNamespace() != "postroad" {
		t.Errorf("%s is in namespace %q", name, r.GetNamespace())
	}
	switch o := object.(type) {
	case *appsv1.Deployment:
		m.pods[o.Spec.Template.Labels["app.kubernetes.io/component"]] = o.Spec.Template
		m.selects[name] = o.Spec.Selector.MatchLabels
	case *batchv1.Job:
		m.pods[o.Spec.Template.Labels["app.kubernetes.io/component"]] = o.Spec.Template
	case *corev1.Service:
		m.services = append(m.services, o)
		m.selects[name] = o.Spec.Selector
	case *policyv1.PodDisruptionBudget:
		m.selects[name] = o.Spec.Selector.MatchLabels
	case *networkingv1.NetworkPolicy:
		m.selects[name] = o.Spec.PodSelector.MatchLabels
	case *corev1.ConfigMap:
		m.configs = append(m.configs, o.Name)
	}
}

// missing names the members that the schema requires and the manifest lacks;
// decoding into a Go type does not see them.
func missing(t *testing.T, r *resource.Resource, text []byte) []string {
	t.Helper()
	schema := openapi.SchemaForResourceType(kyaml.TypeMeta{APIVersion: r.GetApiVersion(), Kind: r.GetKind()})
	if schema == nil {
		t.Fatalf("no schema for %s %s", r.GetApiVersion(), r.GetKind())
	}
	var value any
	if err := yaml.Unmarshal(text, &value); err != nil {
		t.Fatal(err)
	}
	return lacks(t, "", value, schema.Schema)
}

func lacks(t *testing.T, path string, value any, schema *spec.Schema) (faults []string) {
	t.Helper()
	if ref := schema.Ref; ref.String() != "" {
		resolved, err := openapi.Resolve(&ref, openapi.Schema())
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		schema = resolved
	}
	switch v := value.(type) {
	case map[string]any:
		for _, name := range schema.Required {
			if _, ok := v[name]; !ok {
				faults = append(faults, path+"."+name+" is missing")
			}
		}
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if member, ok := schema.Properties[name]; ok {
				faults = append(faults, lacks(t, path+"."+name, v[name], &member)...)
			}
		}
	case []any:
		if schema.Items == nil || schema.Items.Schema == nil {
			return nil
		}
		for i, item := range v {
			faults = append(faults, lacks(t, fmt.Sprintf("%s[%d]", path, i), item, schema.Items.Schema)...)
		}
	}
	return faults
}

func TestManifests(t *testing.T) {
	for folder, want := range map[string]map[string]int{
		"../base": {
			"Namespace": 1, "ServiceAccount": 1, "ConfigMap": 1, "Job": 1, "Deployment": 2, "Service": 2,
			"PodDisruptionBudget": 2, "NetworkPolicy": 3,
		},
		"../overlays/example": {
			"Namespace": 1, "ServiceAccount": 1, "ConfigMap": 1, "Job": 1, "Deployment": 2, "Service": 2,
			"PodDisruptionBudget": 2, "NetworkPolicy": 3, "Ingress": 1,
		},
	} {
		t.Run(folder, func(t *testing.T) {
			m := build(t, folder)
			if !maps.Equal(m.counts, want) {
				t.Errorf("resources %v, want %v", m.counts, want)
			}
			m.checkSelectors(t)
			m.checkServices(t)
			for component, pod := range m.pods {
				m.checkPod(t, component, pod)
			}
		})
	}
}

// checkSelectors expects that whatever selects pods finds some.
func (m *manifests) checkSelectors(t *testing.T) {
	t.Helper()
	for name, labels := range m.selects {
		found := 0
		for _, pod := range m.pods {
			if len(labels) > 0 && contains(pod.Labels, labels) {
				found++
			}
		}
		if found == 0 || found > 1 && !strings.HasPrefix(name, "NetworkPolicy") {
			t.Errorf("%s selects %d kinds of pods by %v", name, found, labels)
		}
	}
}

func contains(all, wanted map[string]string) bool {
	for name, value := range wanted {
		if all[name] != value {
			return false
		}
	}
	return true
}

// checkServices expects that each port of a service is one of its pods'.
func (m *manifests) checkServices(t *testing.T) {
	t.Helper()
	for _, service := range m.services {
		pod := m.pods[service.Spec.Selector["app.kubernetes.io/component"]]
		for _, port := range service.Spec.Ports {
			if !hasPort(pod, port.TargetPort.String()) {
				t.Errorf("service %s leads to port %s, which no container has", service.Name, port.TargetPort.String())
			}
		}
	}
}

func hasPort(pod corev1.PodTemplateSpec, name string) bool {
	for _, c := range pod.Spec.Containers {
		for _, p := range c.Ports {
			if p.Name == name {
				return true
			}
		}
	}
	return false
}

func (m *manifests) checkPod(t *testing.T, component string, pod corev1.PodTemplateSpec) {
	t.Helper()
	s := pod.Spec.SecurityContext
	if s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot || s.RunAsUser == nil || *s.RunAsUser != 10001 || s.SeccompProfile == nil {
		t.Errorf("%s may run as root, or as another user than the image's", component)
	}
	if server := component != "migrate"; server && (pod.Spec.TerminationGracePeriodSeconds == nil || *pod.Spec.TerminationGracePeriodSeconds != 40) {
		t.Errorf("%s does not get 40 s to stop", component)
	}
	for _, c := range pod.Spec.Containers {
		if c.SecurityContext == nil || c.SecurityContext.ReadOnlyRootFilesystem == nil || !*c.SecurityContext.ReadOnlyRootFilesystem {
			t.Errorf("%s may write to its image", component)
		}
		if c.Resources.Requests.Cpu().IsZero() || c.Resources.Limits.Memory().IsZero() {
			t.Errorf("%s has no resources set", component)
		}
		if component != "migrate" {
			m.checkProbes(t, component, pod, c)
		}
		m.checkEnvironment(t, component, c)
	}
}

func (m *manifests) checkProbes(t *testing.T, component string, pod corev1.PodTemplateSpec, c corev1.Container) {
	t.Helper()
	for name, probe := range map[string]*corev1.Probe{"startup": c.StartupProbe, "liveness": c.LivenessProbe, "readiness": c.ReadinessProbe} {
		if probe == nil || probe.HTTPGet == nil || !hasPort(pod, probe.HTTPGet.Port.String()) {
			t.Errorf("%s has no %s probe, or one of a port that it has not", component, name)
		}
	}
}

// checkEnvironment expects that secrets are named and not written, and that the
// settings named are the ones generated.
func (m *manifests) checkEnvironment(t *testing.T, component string, c corev1.Container) {
	t.Helper()
	for _, variable := range c.Env {
		if variable.Value != "" || variable.ValueFrom == nil || variable.ValueFrom.SecretKeyRef == nil {
			t.Errorf("%s has %s in the open", component, variable.Name)
		}
	}
	for _, from := range c.EnvFrom {
		if from.ConfigMapRef == nil || !slices.Contains(m.configs, from.ConfigMapRef.Name) {
			t.Errorf("%s takes settings from what is not there: %v", component, from)
		}
	}
}

// TestSchemaSeesFaults keeps the check itself honest.
func TestSchemaSeesFaults(t *testing.T) {
	if err := yaml.UnmarshalStrict([]byte("spec: {replicsa: 2}"), &appsv1.Deployment{}); err == nil {
		t.Error("a misspelt member was taken")
	}
	if err := yaml.UnmarshalStrict([]byte("spec: {replicas: two}"), &appsv1.Deployment{}); err == nil {
		t.Error("a word was taken for a number")
	}
	schema := openapi.SchemaForResourceType(kyaml.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"})
	value := map[string]any{"spec": map[string]any{"template": map[string]any{"spec": map[string]any{"containers": []any{map[string]any{}}}}}}
	got := strings.Join(lacks(t, "", value, schema.Schema), ", ")
	if want := ".spec.selector is missing, .spec.template.spec.containers[0].name is missing"; got != want {
		t.Errorf("it found %q, want %q", got, want)
	}
}
