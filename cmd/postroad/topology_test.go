//go:build chaos

package main_test

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"postroad/internal/apiclient"
	"postroad/internal/testkit"
)

// topology is production in small, a process each: PostgreSQL, Temporal, APIs and
// workers. Ours reach PostgreSQL and Temporal through proxies that can be cut.
type topology struct {
	t        *testing.T
	database string           // PostgreSQL past the proxy, for the test itself
	temporal *temporalProcess // its address is the one past the proxy
	// toPostgres and toTemporal are the ways that APIs and workers go.
	toPostgres, toTemporal *proxy
	environ                []string
	// program is the release that is started; "": this one.
	program string
}

// instance is one of our processes that serves.
type instance struct {
	*child
	// api is a client of an API; of a worker it only has the URL of its health.
	api *apiclient.Client
}

const topologyToken = "a-token-that-is-long-enough"

// newTopology starts PostgreSQL and Temporal, and migrates. APIs and workers are
// added by api and worker.
func newTopology(t *testing.T) *topology {
	t.Helper()
	p := newUnmigrated(t)
	p.migrate()
	return p
}

func newUnmigrated(t *testing.T) *topology {
	t.Helper()
	database := testkit.Database(t, nil)
	parsed, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	p := &topology{t: t, database: database, temporal: startTemporalProcess(t, t.TempDir())}
	p.environ = []string{
		"POSTROAD_KEY_FILE=" + filepath.Join(t.TempDir(), "key"), "POSTROAD_ADMIN_TOKEN=" + topologyToken,
		"POSTROAD_LISTEN=127.0.0.1:0", "POSTROAD_METRICS_LISTEN=127.0.0.1:0",
	}
	p.lay(parsed)
	return p
}

// lay lays ways of its own to PostgreSQL and Temporal.
func (p *topology) lay(database *url.URL) {
	p.toPostgres, p.toTemporal = newProxy(p.t, databaseAddress(database)), newProxy(p.t, p.temporal.address)
	p.environ = append(slices.Clip(p.environ),
		"POSTROAD_DATABASE_URL="+databaseVia(database, p.toPostgres.address), "TEMPORAL_ADDRESS="+p.toTemporal.address)
}

// aside is the same topology for processes that go ways of their own.
func (p *topology) aside() *topology {
	p.t.Helper()
	parsed, err := url.Parse(p.database)
	if err != nil {
		p.t.Fatal(err)
	}
	aside := *p
	aside.lay(parsed)
	return &aside
}

// of is the same topology, where another release's binary is started.
func (p *topology) of(program string) *topology {
	other := *p
	other.program = program
	return &other
}

// databaseAddress is where a proxy finds the server of a URL.
func databaseAddress(u *url.URL) string {
	if dir := u.Query().Get("host"); dir != "" {
		port := u.Query().Get("port")
		if port == "" {
			port = "5432"
		}
		return filepath.Join(dir, ".s.PGSQL."+port)
	}
	return u.Host
}

// databaseVia is the same database at another address.
func databaseVia(u *url.URL, address string) string {
	via := *u
	via.Host = address
	query := via.Query()
	query.Del("host")
	query.Del("port")
	query.Set("sslmode", "disable")
	via.RawQuery = query.Encode()
	return via.String()
}

func (p *topology) migrate() {
	p.t.Helper()
	if code := p.run("migrate").wait(startMax); code != ok {
		p.t.Fatalf("migrate ended with code %d", code)
	}
}

// start starts a command with the topology's settings.
func (p *topology) start(command string, more ...string) *child {
	p.t.Helper()
	return p.run(append([]string{command, "--allow-loopback-endpoints"}, more...)...)
}

func (p *topology) run(args ...string) *child {
	p.t.Helper()
	if p.program != "" {
		return startProgram(p.t, p.program, p.t.TempDir(), p.environ, args...)
	}
	return startChildWith(p.t, p.t.TempDir(), p.environ, args...)
}

// api starts an API and waits until it serves.
func (p *topology) api(more ...string) *instance {
	p.t.Helper()
	return serving(p.t, p.start("api", more...), `the API is running" url=(\S+)`)
}

// worker starts a worker and waits until it polls.
func (p *topology) worker(more ...string) *instance {
	p.t.Helper()
	return serving(p.t, p.start("worker", more...), `the worker is running" health_url=(\S+)`)
}

// serving waits until a process that tells its URL so is ready.
func serving(t *testing.T, c *child, told string) *instance {
	t.Helper()
	i := &instance{c, &apiclient.Client{URL: await(t, &c.stderr, told), Token: topologyToken}}
	testkit.Eventually(t, startMax, func() bool { return get(t, i.api.URL+"/readyz") == http.StatusOK }, i.api.URL+" is ready")
	return i
}

// temporalProcess is a Temporal server as a process of its own: this test binary,
// told to be it. Its data outlive it.
type temporalProcess struct {
	*child
	t       *testing.T
	dir     string
	address string
}

var temporalStarting sync.Mutex

func startTemporalProcess(t *testing.T, dir string) *temporalProcess {
	t.Helper()
	p := &temporalProcess{t: t, dir: dir}
	p.start("127.0.0.1:0")
	return p
}

// start starts it again after its end. Over the same data it has the same id.
func (p *temporalProcess) start(listen string) {
	p.t.Helper()
	temporalStarting.Lock() // it looks for free ports before it takes them
	defer temporalStarting.Unlock()
	p.child = startChildWith(p.t, p.t.TempDir(), []string{temporalVariable + "=" + p.dir}, listen)
	p.address = await(p.t, &p.child.stdout, `(\S+)\n`)
}

// startTemporal starts Temporal again, where the proxy finds it.
func (p *topology) startTemporal() {
	p.t.Helper()
	p.temporal.start("127.0.0.1:0")
	p.toTemporal.lead(p.temporal.address)
}

// proxy is a way to a server that can be interrupted.
type proxy struct {
	address string

	mu      sync.Mutex
	server  string // a path is a Unix socket
	refuses bool
	frozen  chan struct{} // closed when it thaws; nil unless frozen
	conns   map[net.Conn]bool
}

func newProxy(t *testing.T, server string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{address: listener.Addr().String(), server: server, conns: map[net.Conn]bool{}}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() { p.carry(near) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		p.cut()
		all.Wait()
	})
	return p
}

// carry carries one connection to its end.
func (p *proxy) carry(near net.Conn) {
	defer near.Close()
	if !p.keep(near) {
		return
	}
	defer p.forget(near)
	p.thawed() // what is frozen takes a connection and says nothing
	p.mu.Lock()
	server := p.server
	p.mu.Unlock()
	network := "tcp"
	if strings.HasPrefix(server, "/") {
		network = "unix"
	}
	far, err := (&net.Dialer{}).DialContext(context.Background(), network, server)
	if err != nil {
		return
	}
	defer far.Close()
	if !p.keep(far) {
		return
	}
	defer p.forget(far)
	var both sync.WaitGroup
	both.Go(func() { p.copy(far, near) })
	both.Go(func() { p.copy(near, far) })
	both.Wait()
}

// copy copies one direction; the end of it is the end of both.
func (p *proxy) copy(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		p.thawed() // the end of a connection does not get through either
		if _, failed := to.Write(buffer[:n]); failed != nil || err != nil {
			return
		}
	}
}

// keep remembers a connection, unless there may be none.
func (p *proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[c] = true
	return !p.refuses
}

func (p *proxy) forget(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

func (p *proxy) thawed() {
	p.mu.Lock()
	frozen := p.frozen
	p.mu.Unlock()
	if frozen != nil {
		<-frozen
	}
}

// lead sends new connections to another server.
func (p *proxy) lead(server string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.server = server
}

// freeze holds everything back, as a network that lost its way: connections stay
// open on both sides, and new ones are taken.
func (p *proxy) freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.frozen == nil {
		p.frozen = make(chan struct{})
	}
}

// cut ends all connections, with what was held back in them, and refuses new ones.
func (p *proxy) cut() { p.breakAll(true) }

// reset ends all connections, with what was held back in them, and lets new ones
// through.
func (p *proxy) reset() { p.breakAll(false) }

func (p *proxy) breakAll(refuse bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuses = refuse
	for c := range p.conns {
		_ = c.Close()
	}
	p.thaw()
}

// resume lets everything through; what was held back goes on its way.
func (p *proxy) resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuses = false
	p.thaw()
}

func (p *proxy) thaw() {
	if p.frozen != nil {
		close(p.frozen)
		p.frozen = nil
	}
}
