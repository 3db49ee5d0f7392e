package main_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// exactVersion is a tag that names one version.
var exactVersion = regexp.MustCompile(`^[a-z]+(/[a-z-]+)?:v?\d+\.\d+(\.\d+)?(@sha256:[0-9a-f]{64})?$`)

// TestComposeFile holds the whole file to its rules, also of what is not ours.
func TestComposeFile(t *testing.T) {
	t.Parallel()
	file := readCompose(t)
	for name, service := range file.Services {
		ours := service.Image == "postroad:local"
		if !ours && !exactVersion.MatchString(service.Image) {
			t.Errorf("%s: image %q has no exact version", name, service.Image)
		}
		for _, port := range service.Ports {
			if !strings.HasPrefix(port, "127.0.0.1:") {
				t.Errorf("%s: other machines reach port %s", name, port)
			}
		}
		if ours && service.StopGrace != 40*time.Second {
			t.Errorf("%s: has %s to stop", name, service.StopGrace)
		}
		for _, volume := range service.Volumes {
			source, _, _ := strings.Cut(volume, ":")
			_, named := file.Volumes[source]
			if _, err := os.Stat(filepath.Join(root(t), source)); err != nil && !named {
				t.Errorf("%s: %v", name, err)
			}
		}
		for other, need := range service.DependsOn {
			needed, there := file.Services[other]
			runs := needed.Restart == "unless-stopped"
			switch {
			case !there:
				t.Errorf("%s needs %s, which is not there", name, other)
			case need.Condition == "service_healthy" && runs && len(needed.Healthcheck.Test) > 0:
			case need.Condition == "service_completed_successfully" && !runs:
			default:
				t.Errorf("%s waits for %s to be %q, which it never is", name, other, need.Condition)
			}
		}
	}
}

// manifest is what these tests read of a Kubernetes manifest.
type manifest struct {
	Kind string
	Spec struct {
		Template struct {
			Spec struct {
				Grace      int `yaml:"terminationGracePeriodSeconds"`
				Containers []podContainer
			}
		}
	}
}

type podContainer struct {
	Name string
	Args []string
	Env  []struct {
		Name      string
		ValueFrom struct {
			Secret struct {
				Key      string
				Optional bool
			} `yaml:"secretKeyRef"`
		} `yaml:"valueFrom"`
	}
	EnvFrom []any `yaml:"envFrom"`
	Ports   []struct {
		Name string
		Port int `yaml:"containerPort"`
	}
	Ready struct {
		Get struct{ Path, Port string } `yaml:"httpGet"`
	} `yaml:"readinessProbe"`
}

// readManifests returns our containers in deploy/kubernetes/base, by name, and
// the shortest time that one gets to stop.
func readManifests(t *testing.T) (containers map[string]container, grace time.Duration) {
	t.Helper()
	base := filepath.Join(root(t), "deploy", "kubernetes", "base")
	settings := readSettings(t, filepath.Join(base, "kustomization.yaml"))
	containers, grace = map[string]container{}, time.Hour
	files, err := filepath.Glob(filepath.Join(base, "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for decoder := yaml.NewDecoder(bytes.NewReader(text)); ; {
			var m manifest
			if err := decoder.Decode(&m); errors.Is(err, io.EOF) {
				break
			} else if err != nil && m.Kind != "NetworkPolicy" {
				t.Fatalf("%s: %v", file, err)
			}
			pod := m.Spec.Template.Spec
			for _, c := range pod.Containers {
				containers[c.Name] = c.container(settings)
			}
			if pod.Grace > 0 {
				grace = min(grace, time.Duration(pod.Grace)*time.Second)
			}
		}
	}
	return containers, grace
}

// readSettings returns the literals that kustomize makes a ConfigMap of.
func readSettings(t *testing.T, file string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var kustomization struct {
		Generators []struct{ Literals []string } `yaml:"configMapGenerator"`
	}
	if err := yaml.Unmarshal(text, &kustomization); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	settings := map[string]string{}
	for _, literal := range kustomization.Generators[0].Literals {
		name, value, _ := strings.Cut(literal, "=")
		settings[name] = value
	}
	return settings
}

func (c podContainer) container(settings map[string]string) container {
	made := container{name: c.Name, args: c.Args, environ: map[string]string{}}
	if len(c.EnvFrom) > 0 {
		for name, value := range settings {
			made.environ[name] = value
		}
	}
	for _, variable := range c.Env {
		if secret := variable.ValueFrom.Secret; !secret.Optional {
			made.environ[variable.Name] = "the secret's " + secret.Key
		}
	}
	port := func(name string) string {
		for _, p := range c.Ports {
			if p.Name == name {
				return strconv.Itoa(p.Port)
			}
		}
		return ""
	}
	made.metrics = port("metrics")
	made.probe = "http://127.0.0.1:" + port(c.Ready.Get.Port) + c.Ready.Get.Path
	return made
}

// TestContainersOfKubernetes runs the command line of each container in the
// manifests, with its environment, and asks what its readiness probe asks. What
// else Kubernetes asks of the manifests is checked by deploy/kubernetes/check.
func TestContainersOfKubernetes(t *testing.T) {
	t.Parallel()
	containers, grace := readManifests(t)
	h := newHouse(t)
	h.makeKeys(readCompose(t)) // in place of the Secret
	for _, name := range []string{"migrate", "api", "worker"} {
		c := containers[name]
		if c.environ["POSTROAD_DATABASE_URL"] != "the secret's database-url" {
			t.Errorf("%s is not told where the database is", name)
		}
	}
	h.live(containers["migrate"], []container{containers["api"], containers["worker"], containers["worker"]}, grace, func(*resident) {})
}
