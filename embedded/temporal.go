//go:build !slim

package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/server/common/authorization"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/log"
	"go.temporal.io/server/schema/sqlite"
	"go.temporal.io/server/temporal"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/protobuf/types/known/durationpb"

	"postroad/internal/ports"
)

const slim = false

const (
	temporalReadyMax     = 30 * time.Second
	temporalPollInterval = 20 * time.Millisecond
)

// temporalServer is Temporal's server, which can be started and stopped by turns.
type temporalServer struct {
	cfg       Config
	dir       *dataDir
	listen    *net.TCPAddr
	store     *config.SQL
	clusterID string
	server    temporal.Server // nil while it does not run
	log       *logFile
}

func newTemporal(cfg Config, dir *dataDir, listen *net.TCPAddr, clusterID string) *temporalServer {
	return &temporalServer{cfg: cfg, dir: dir, listen: listen, store: storeConfig(dir, cfg.NoSync), clusterID: clusterID}
}

// start returns the cluster's id once the namespace can be used.
func (t *temporalServer) start(ctx context.Context) (clusterID string, err error) {
	if t.server != nil {
		return t.clusterID, nil
	}
	if err := ports.Check(t.listen.String()); err != nil {
		return "", err
	}
	if err := prepareStore(ctx, t.store, t.cfg.Logger); err != nil {
		return "", err
	}
	if err := t.registerNamespace(); err != nil {
		return "", err
	}
	if err := t.startServer(); err != nil {
		return "", errors.Join(err, t.stop(ctx))
	}
	if err := t.awaitReady(ctx); err != nil {
		return "", errors.Join(err, t.stop(ctx))
	}
	return t.clusterID, nil
}

// registerNamespace writes the namespace where it is new, before the server runs:
// through the server it would take seconds to be seen.
func (t *temporalServer) registerNamespace() error {
	attributes := make(map[string]enumspb.IndexedValueType, len(t.cfg.SearchAttributes))
	for name, typeName := range t.cfg.SearchAttributes {
		attributeType, err := enumspb.IndexedValueTypeFromString(typeName)
		if err != nil {
			return fmt.Errorf("search attribute %s: %w", name, err)
		}
		attributes[name] = attributeType
	}
	namespace, err := sqlite.NewNamespaceConfig(clusterName, t.cfg.Namespace, false, attributes)
	if err != nil {
		return fmt.Errorf("register namespace %s: %w", t.cfg.Namespace, err)
	}
	namespace.Detail.Config.Retention = durationpb.New(t.cfg.Retention)
	if err := sqlite.CreateNamespaces(t.store, namespace); err != nil {
		return fmt.Errorf("register namespace %s: %w", t.cfg.Namespace, err)
	}
	return nil
}

func (t *temporalServer) startServer() error {
	logger, err := t.openLog()
	if err != nil {
		return err
	}
	free, err := ports.Free(3)
	if err != nil {
		return err
	}
	internal := internalPorts{history: free[0], matching: free[1], worker: free[2]}
	cfg := serverConfig(t.store, t.listen, internal, t.clusterID)
	claimMapper, err := authorization.GetClaimMapperFromConfig(&cfg.Global.Authorization, logger)
	if err != nil {
		return err
	}
	authorizer, err := authorization.GetAuthorizerFromConfig(&cfg.Global.Authorization)
	if err != nil {
		return err
	}
	server, err := temporal.NewServer(
		temporal.WithConfig(cfg),
		temporal.ForServices(temporal.DefaultServices),
		temporal.WithStaticHosts(hosts(t.listen, internal)),
		temporal.WithLogger(logger),
		temporal.WithAuthorizer(authorizer),
		temporal.WithClaimMapper(func(*config.Config) authorization.ClaimMapper { return claimMapper }),
		temporal.WithDynamicConfigClient(dynamicConfig()),
	)
	if err != nil {
		return err
	}
	t.server = server
	return server.Start()
}

// openLog makes Temporal's logger. It may end the process (Fatal), which must not
// happen with its reason in a file that nobody looks at.
func (t *temporalServer) openLog() (log.Logger, error) {
	path := t.dir.file("temporal.log")
	file, err := openLogFile(path)
	if err != nil {
		return nil, err
	}
	t.log = file
	core := zapcore.NewCore(zapcore.NewJSONEncoder(log.DefaultZapEncoderConfig), file, zap.WarnLevel)
	tellFatal := zap.Hooks(func(entry zapcore.Entry) error {
		if entry.Level >= zap.DPanicLevel {
			t.cfg.Logger.Error("Temporal's server fails", "message", entry.Message, "log", path)
		}
		return nil
	})
	return plainLogger{log.NewZapLogger(zap.New(core, tellFatal))}, nil
}

// awaitReady waits until the namespace answers, completes its search attributes
// and learns the cluster's id.
func (t *temporalServer) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, temporalReadyMax)
	defer cancel()
	c, err := client.NewLazyClient(client.Options{
		HostPort: dialable(t.listen), Namespace: t.cfg.Namespace,
		Logger: sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler)),
	})
	if err != nil {
		return err
	}
	defer c.Close()
	for {
		_, err := c.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: t.cfg.Namespace})
		if err == nil {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; last answer: %w", context.Cause(ctx), err)
		case <-time.After(temporalPollInterval):
		}
	}
	if err := t.addSearchAttributes(ctx, c); err != nil {
		return err
	}
	info, err := c.WorkflowService().GetClusterInfo(ctx, &workflowservice.GetClusterInfoRequest{})
	if err != nil {
		return fmt.Errorf("read cluster id: %w", err)
	}
	t.clusterID = info.GetClusterId()
	return nil
}

// addSearchAttributes adds those that a namespace of an earlier start lacks.
func (t *temporalServer) addSearchAttributes(ctx context.Context, c client.Client) error {
	present, err := c.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: t.cfg.Namespace})
	if err != nil {
		return fmt.Errorf("list search attributes: %w", err)
	}
	missing := make(map[string]enumspb.IndexedValueType)
	for name, typeName := range t.cfg.SearchAttributes {
		if _, ok := present.GetCustomAttributes()[name]; ok {
			continue
		}
		if missing[name], err = enumspb.IndexedValueTypeFromString(typeName); err != nil {
			return fmt.Errorf("search attribute %s: %w", name, err)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	_, err = c.OperatorService().AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{
		Namespace: t.cfg.Namespace, SearchAttributes: missing,
	})
	if err != nil {
		return fmt.Errorf("add search attributes: %w", err)
	}
	return nil
}

// stop stops the server, which takes no context: when ctx ends it goes on
// stopping on its own.
func (t *temporalServer) stop(ctx context.Context) error {
	if t.server == nil {
		return t.closeLog()
	}
	server := t.server
	t.server = nil
	stopped := make(chan error, 1)
	go func() { stopped <- server.Stop() }()
	select {
	case err := <-stopped:
		return errors.Join(err, t.closeLog())
	case <-ctx.Done():
		return fmt.Errorf("it is still stopping: %w", context.Cause(ctx))
	}
}

func (t *temporalServer) closeLog() error {
	if t.log == nil {
		return nil
	}
	file := t.log
	t.log = nil
	return file.Close()
}
