package main_test

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"postroad/internal/ports"
	"postroad/internal/testkit"
)

// house is what containers live with: PostgreSQL, Temporal, and the folder of
// keys. It runs a container's command line as a process of this machine.
type house struct {
	t        *testing.T
	database string
	temporal string
	keys     string
}

// container is one of ours, as a file says that it is started.
type container struct {
	name    string
	args    []string
	environ map[string]string
	// probe is the URL that tells whether it is; "" for one that ends.
	probe string
	// metrics is its port for Prometheus.
	metrics string
}

// resident is a container that runs.
type resident struct {
	container
	*child
}

func newHouse(t *testing.T) *house {
	t.Helper()
	temporal := startTemporal(t, t.TempDir(), "127.0.0.1:0")
	return &house{t: t, database: testkit.Database(t, nil), temporal: temporal.TemporalAddress, keys: t.TempDir()}
}

var listenAddress = regexp.MustCompile(`\b(0\.0\.0\.0|127\.0\.0\.1):(\d+)`)

// settle puts this machine's addresses and paths in the place of those that
// only the containers know. Nothing else of the container changes.
func (h *house) settle(c container) container {
	h.t.Helper()
	taken := map[string]int{}
	here := func(text string) string {
		text = strings.ReplaceAll(text, "/keys", h.keys)
		return listenAddress.ReplaceAllStringFunc(text, func(address string) string {
			_, port, _ := strings.Cut(address, ":")
			if taken[port] == 0 {
				free, err := ports.Free(1)
				if err != nil {
					h.t.Fatal(err)
				}
				taken[port] = free[0]
			}
			return fmt.Sprintf("127.0.0.1:%d", taken[port])
		})
	}
	settled := container{name: c.name, environ: map[string]string{}, probe: here(c.probe), metrics: here("127.0.0.1:" + c.metrics)}
	for _, arg := range c.args {
		settled.args = append(settled.args, here(arg))
	}
	for name, value := range c.environ {
		settled.environ[name] = here(value)
	}
	settled.environ["POSTROAD_DATABASE_URL"] = h.database
	if _, needed := c.environ["TEMPORAL_ADDRESS"]; needed {
		settled.environ["TEMPORAL_ADDRESS"] = h.temporal
	}
	return settled
}

// start starts a container.
func (h *house) start(c container) *resident {
	h.t.Helper()
	settled := h.settle(c)
	return &resident{container: settled, child: h.run(settled, settled.args...)}
}

// run runs postroad in a container's environment.
func (h *house) run(c container, args ...string) *child {
	h.t.Helper()
	var environ []string
	for _, name := range slices.Sorted(maps.Keys(c.environ)) {
		environ = append(environ, name+"="+c.environ[name])
	}
	return startChildWith(h.t, h.t.TempDir(), environ, args...)
}

// awaitReady asks as a health check does until the answer is good.
func (h *house) awaitReady(r *resident) {
	h.t.Helper()
	testkit.Eventually(h.t, waitMax, func() bool {
		if r.ended() {
			h.t.Fatalf("%s ended: %s", r.name, r.stderr.String())
		}
		return h.run(r.container, "healthcheck", r.probe).wait(waitMax) == ok
	}, r.name+" is ready")
	if status := get(h.t, "http://"+r.metrics+"/metrics"); status != http.StatusOK {
		h.t.Errorf("%s serves no metrics: %d", r.name, status)
	}
}

// live migrates, starts all, sees each ready and stops them within the time
// that they are given.
func (h *house) live(migrate container, servers []container, grace time.Duration, client func(api *resident)) {
	h.t.Helper()
	if code := h.start(migrate).wait(waitMax); code != ok {
		h.t.Fatalf("migrate ended with code %d", code)
	}
	var running []*resident
	for _, server := range servers {
		running = append(running, h.start(server))
	}
	for _, r := range running {
		h.awaitReady(r)
		h.t.Logf("%s is ready: postroad %s", r.name, strings.Join(r.args, " "))
	}
	client(running[0])
	for _, r := range running {
		if took := r.terminate(); took > grace {
			h.t.Errorf("%s took %s to stop, and is killed after %s", r.name, took, grace)
		}
		if code := h.run(r.container, "healthcheck", r.probe).wait(waitMax); code != failed {
			h.t.Errorf("the health check of %s, which has stopped, ended with code %d", r.name, code)
		}
	}
}

// composeFile is what these tests read of docker-compose.yml.
type composeFile struct {
	Services map[string]struct {
		Image       string
		Entrypoint  []string
		Command     []string
		Environment map[string]string
		Ports       []string
		Volumes     []string
		Restart     string
		StopGrace   time.Duration                         `yaml:"stop_grace_period"`
		DependsOn   map[string]struct{ Condition string } `yaml:"depends_on"`
		Healthcheck struct{ Test []string }
		Deploy      struct{ Replicas int }
	}
	Volumes map[string]any
}

var interpolation = regexp.MustCompile(`\$\$|\$\{[A-Z_]+:-([^}]*)\}`)

// readCompose reads it as it is where no variable is set.
func readCompose(t *testing.T) composeFile {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root(t), "docker-compose.yml"))
	if err != nil {
		t.Fatal(err)
	}
	text = interpolation.ReplaceAllFunc(text, func(match []byte) []byte {
		if string(match) == "$$" {
			return []byte("$")
		}
		return interpolation.FindSubmatch(match)[1]
	})
	var file composeFile
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatalf("read docker-compose.yml: %v", err)
	}
	return file
}

// root is the root of the repository.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func (f composeFile) container(t *testing.T, name string) container {
	t.Helper()
	service := f.Services[name]
	c := container{name: name, args: service.Command, environ: service.Environment}
	if check := service.Healthcheck.Test; len(check) > 0 {
		if len(check) != 4 || !slices.Equal(check[:3], []string{"CMD", "postroad", "healthcheck"}) {
			t.Fatalf("the health check of %s: %q", name, check)
		}
		c.probe = check[3]
	}
	if at := slices.Index(service.Command, "--metrics-listen"); at >= 0 {
		_, c.metrics, _ = strings.Cut(service.Command[at+1], ":")
	}
	return c
}

// makeKeys runs the step that makes master key and admin token.
func (h *house) makeKeys(file composeFile) {
	h.t.Helper()
	keys := file.Services["keys"]
	script := strings.ReplaceAll(keys.Command[len(keys.Command)-1], "/keys", h.keys)
	script = strings.ReplaceAll(script, "chown", "true chown") // the image's user may not exist here
	line := slices.Concat(keys.Entrypoint, keys.Command[:len(keys.Command)-1], []string{script})
	step := exec.CommandContext(h.t.Context(), line[0], line[1:]...)
	step.Env = append(os.Environ(), "POSTROAD_ADMIN_TOKEN=")
	if said, err := step.CombinedOutput(); err != nil {
		h.t.Fatalf("make keys: %v\n%s", err, said)
	}
}

func (h *house) key(name string) string {
	h.t.Helper()
	text, err := os.ReadFile(filepath.Join(h.keys, name))
	if err != nil {
		h.t.Fatal(err)
	}
	return string(text)
}

// TestContainersOfCompose runs the command line of each of our containers in
// docker-compose.yml, with its environment, and its health check.
func TestContainersOfCompose(t *testing.T) {
	t.Parallel()
	file, h := readCompose(t), newHouse(t)
	h.makeKeys(file)
	key, token := h.key("key"), h.key("admin-token")
	h.makeKeys(file)
	if key != h.key("key") || token != h.key("admin-token") {
		t.Error("another start made other keys")
	}
	servers := []container{file.container(t, "api")}
	for range file.Services["worker"].Deploy.Replicas {
		servers = append(servers, file.container(t, "worker"))
	}
	if len(servers) != 3 {
		t.Errorf("%d workers, want 2", len(servers)-1)
	}
	h.live(file.container(t, "migrate"), servers, file.Services["api"].StopGrace, func(api *resident) {
		// As in `docker compose exec api postroad status`.
		if code := h.run(api.container, "status").wait(waitMax); code != ok {
			t.Errorf("the command line in the container ended with code %d", code)
		}
	})
}
