package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/interceptor"
	sdkworker "go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"postroad/contract"
	"postroad/eventlog"
	"postroad/store"
	"postroad/workflows"
)

// Activities is what the workflows call.
type Activities interface {
	Deliver(ctx context.Context, in contract.DeliverInput) (contract.DeliverResult, error)
	Apply(ctx context.Context, in contract.ApplyInput) (contract.ApplyResult, error)
	// Drain lets no further request start and has each Deliver return soon. It
	// does not wait.
	Drain()
}

// Config says what a worker works with. The zero value of a period or bound
// means its default.
type Config struct {
	// Client is connected to Namespace of the Temporal cluster. The caller closes
	// it after Stop.
	Client client.Client
	// Namespace is the client's. Default contract.Namespace.
	Namespace string
	// AdoptCluster makes this cluster and namespace the ones that drive the
	// database, whichever did before.
	AdoptCluster bool
	// Log and Activities are started by the caller before Start and closed after
	// Stop.
	Log        *eventlog.Log
	Store      *store.Store
	Activities Activities
	// DirectURL is a connection to PostgreSQL past any pooler.
	DirectURL string
	// Slots is how many Delivers run at once. Default SlotsDefault().
	Slots int
	// ControlSlots is how many controls are applied at once. Default 100.
	ControlSlots int
	// Pollers is how many polls for tasks of each kind are open at once. Default
	// 8, and 2 for controls.
	Pollers int
	// HeartbeatThrottle is the longest that the SDK holds Deliver's signs of life
	// back, and so how late a cancelled run may learn of it where the server
	// cannot tell the worker. Default 24 s: 10,000 runs are 400 calls a second.
	HeartbeatThrottle time.Duration
	// StopTimeout bounds how long Stop waits for Deliver to return. Default 22 s:
	// the 18 s that requests are given, and a checkpoint.
	StopTimeout time.Duration
	Waker       WakerConfig
	Logger      *slog.Logger
}

// WithDefaults returns a copy with the defaults filled in.
func (c Config) WithDefaults() Config {
	setDefault(&c.Namespace, contract.Namespace)
	if c.Slots == 0 {
		c.Slots = SlotsDefault()
	}
	setDefault(&c.ControlSlots, 100)
	setDefault(&c.Pollers, 8)
	setDefault(&c.HeartbeatThrottle, 24*time.Second)
	setDefault(&c.StopTimeout, 22*time.Second)
	setDefault(&c.Logger, slog.Default())
	c.Waker = c.Waker.WithDefaults()
	return c
}

func (c Config) validate() error {
	switch {
	case c.Client == nil:
		return errors.New("worker: Client is missing")
	case c.Log == nil:
		return errors.New("worker: Log is missing")
	case c.Store == nil:
		return errors.New("worker: Store is missing")
	case c.Activities == nil:
		return errors.New("worker: Activities is missing")
	case c.DirectURL == "":
		return errors.New("worker: DirectURL is missing")
	case c.Slots < 0 || c.ControlSlots < 0 || c.Pollers < 2:
		return errors.New("worker: Slots and ControlSlots must be above 0, Pollers at least 2")
	}
	return nil
}

// Worker runs workflows, activities and the waker.
type Worker struct {
	config   Config
	main     sdkworker.Worker
	controls sdkworker.Worker
	waker    *Waker

	fatal    chan error // of capacity 2: one for each Temporal worker
	stopOnce sync.Once

	mu        sync.Mutex
	started   bool
	stopWaker context.CancelFunc
	wakerDone chan struct{}
}

// cachedWorkflowsMax bounds the workflows that are kept in memory, with the stacks
// of their coroutines. A busy subscriber's has something to do every five minutes,
// a parked one's at its next wake: replaying its history of some twenty events
// costs less than keeping it.
const cachedWorkflowsMax = 1000

// New returns a worker that Start has still to be called on. It sets the size
// of the SDK's workflow cache, which all workers of a process share.
func New(config Config) (*Worker, error) {
	config = config.WithDefaults()
	if err := config.validate(); err != nil {
		return nil, err
	}
	w := &Worker{config: config, fatal: make(chan error, 2)}
	w.waker = NewWaker(config.Waker, config.Log, config.Store, temporalSignaller{config.Client}, config.DirectURL, config.Logger)

	sdkworker.SetStickyWorkflowCacheSize(min(config.Slots, cachedWorkflowsMax))
	w.main = sdkworker.New(config.Client, contract.TaskQueue, sdkworker.Options{
		MaxConcurrentActivityExecutionSize: config.Slots,
		MaxConcurrentActivityTaskPollers:   config.Pollers,
		MaxConcurrentWorkflowTaskPollers:   config.Pollers,
		MaxHeartbeatThrottleInterval:       config.HeartbeatThrottle,
		WorkerStopTimeout:                  config.StopTimeout,
		Interceptors:                       []interceptor.WorkerInterceptor{workflows.Interceptor()},
		OnFatalError:                       w.noteFatal,
	})
	w.main.RegisterWorkflowWithOptions(workflows.Subscriber, workflow.RegisterOptions{Name: contract.SubscriberWorkflow})
	w.main.RegisterActivityWithOptions(config.Activities.Deliver, activity.RegisterOptions{Name: contract.DeliverActivity})
	w.controls = sdkworker.New(config.Client, contract.ControlTaskQueue, sdkworker.Options{
		DisableWorkflowWorker:              true,
		MaxConcurrentActivityExecutionSize: config.ControlSlots,
		WorkerStopTimeout:                  config.StopTimeout,
		OnFatalError:                       w.noteFatal,
	})
	w.controls.RegisterActivityWithOptions(config.Activities.Apply, activity.RegisterOptions{Name: contract.ApplyActivity})
	return w, nil
}

func (w *Worker) noteFatal(err error) {
	select {
	case w.fatal <- err:
	default:
	}
}

// Fatal yields an error that makes going on senseless, such as a namespace that
// was deleted; the worker has stopped polling then.
func (w *Worker) Fatal() <-chan error { return w.fatal }

// Waker returns the worker's waker, for its counters.
func (w *Worker) Waker() *Waker { return w.waker }

// Start begins to work. ctx bounds starting only. It refuses with an
// *InstallationError where another cluster or namespace drives the database.
func (w *Worker) Start(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.started {
		return errors.New("start worker: started before")
	}
	if err := w.checkInstallation(ctx); err != nil {
		return err
	}
	if err := w.controls.Start(); err != nil {
		return fmt.Errorf("start control worker: %w", err)
	}
	if err := w.main.Start(); err != nil {
		w.controls.Stop()
		return fmt.Errorf("start worker: %w", err)
	}
	w.started = true
	waking, stop := context.WithCancel(context.WithoutCancel(ctx))
	w.stopWaker, w.wakerDone = stop, make(chan struct{})
	go func() {
		defer close(w.wakerDone)
		w.waker.Run(waking)
	}()
	return nil
}

// Stop closes the gate of deliveries first, then lets what runs end for as long
// as StopTimeout, and returns. Nothing is polled any more afterwards.
func (w *Worker) Stop() {
	w.stopOnce.Do(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.config.Activities.Drain()
		if !w.started {
			return
		}
		w.stopWaker()
		var stopping sync.WaitGroup
		stopping.Go(w.main.Stop)
		stopping.Go(w.controls.Stop)
		stopping.Wait()
		<-w.wakerDone
	})
}

// Run starts the worker, waits for the end of ctx or a fatal error, and stops.
func (w *Worker) Run(ctx context.Context) error {
	if err := w.Start(ctx); err != nil {
		return err
	}
	defer w.Stop()
	select {
	case <-ctx.Done():
		return nil
	case err := <-w.fatal:
		return fmt.Errorf("run worker: %w", err)
	}
}
