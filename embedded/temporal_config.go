//go:build !slim

package embedded

import (
	"net"
	"strconv"
	"time"

	"go.temporal.io/server/common/cluster"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/dynamicconfig"
	"go.temporal.io/server/common/membership/static"
	"go.temporal.io/server/common/persistence/sql/sqlplugin/sqlite"
	"go.temporal.io/server/common/primitives"
)

// clusterName is the one cluster's name within its own metadata.
const clusterName = "active"

// internalPorts are the loopback ports of the services behind the frontend.
type internalPorts struct{ history, matching, worker int }

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// serverConfig is the static configuration of a one-process server. Metrics,
// pprof and archival stay off, and static hosts need no membership ports.
func serverConfig(store *config.SQL, listen *net.TCPAddr, internal internalPorts, clusterID string) *config.Config {
	frontend := config.Service{RPC: config.RPC{GRPCPort: listen.Port, BindOnIP: listen.IP.String()}}
	behind := func(port int) config.Service {
		return config.Service{RPC: config.RPC{GRPCPort: port, BindOnIP: "127.0.0.1"}}
	}
	return &config.Config{
		Persistence: config.Persistence{
			DefaultStore:     sqlite.PluginName,
			VisibilityStore:  sqlite.PluginName,
			NumHistoryShards: 1,
			DataStores:       map[string]config.DataStore{sqlite.PluginName: {SQL: store}},
		},
		ClusterMetadata: &cluster.Config{
			FailoverVersionIncrement: 10,
			MasterClusterName:        clusterName,
			CurrentClusterName:       clusterName,
			ClusterInformation: map[string]cluster.ClusterInformation{clusterName: {
				Enabled:                true,
				InitialFailoverVersion: 1,
				RPCAddress:             dialable(listen),
				ClusterID:              clusterID,
			}},
		},
		DCRedirectionPolicy: config.DCRedirectionPolicy{Policy: "noop"},
		Services: map[string]config.Service{
			"frontend": frontend,
			"history":  behind(internal.history),
			"matching": behind(internal.matching),
			"worker":   behind(internal.worker),
		},
		Archival: config.Archival{
			History:    config.HistoryArchival{State: "disabled"},
			Visibility: config.VisibilityArchival{State: "disabled"},
		},
		NamespaceDefaults: config.NamespaceDefaults{Archival: config.ArchivalNamespaceDefaults{
			History:    config.HistoryArchivalNamespaceDefaults{State: "disabled"},
			Visibility: config.VisibilityArchivalNamespaceDefaults{State: "disabled"},
		}},
		PublicClient: config.PublicClient{HostPort: dialable(listen)},
	}
}

// Limits meant to share a server among many users, far above what one process reaches.
const unlimitedRPS = 100_000

// All wait in turn for the one connection to SQLite: what workers ask for, of which
// Temporal lets one at a time reach it for each shard, and the tasks of the queues,
// 512 of each. So ten thousand starts were noted in the list of workflows before the
// first of them ran; requests timed out behind them, and were made again.
const (
	shardRequests   = 16
	transferWorkers = 8
	timerWorkers    = 4
	listWorkers     = 2
)

// stateKept is how long a workflow's state is kept in memory, 20 KiB or so: that of
// one at work is read anew after it, that of one at rest is let go.
const stateKept = 2 * time.Minute

// cachedWorkflows is how many workflows the workers of this process keep in memory,
// as many as Postroad's would by itself.
const cachedWorkflows = 1000

// dynamicConfig is what differs from Temporal's defaults.
func dynamicConfig() dynamicconfig.StaticClient {
	return dynamicconfig.StaticClient{
		// The default of 20 makes every task dispatch after a burst of 21 wait 47 ms.
		// The list of workflows may wait: each poll looks at all that is pending.
		dynamicconfig.TransferProcessorMaxPollRPS.Key(): 2000,
		dynamicconfig.TimerProcessorMaxPollRPS.Key():    2000,
		dynamicconfig.OutboundProcessorMaxPollRPS.Key(): 2000,

		dynamicconfig.FrontendRPS.Key():                                  unlimitedRPS,
		dynamicconfig.FrontendMaxNamespaceRPSPerInstance.Key():           unlimitedRPS,
		dynamicconfig.FrontendMaxNamespaceVisibilityRPSPerInstance.Key(): 200,
		dynamicconfig.HistoryRPS.Key():                                   unlimitedRPS,
		dynamicconfig.MatchingRPS.Key():                                  unlimitedRPS,
		dynamicconfig.FrontendPersistenceMaxQPS.Key():                    unlimitedRPS,
		dynamicconfig.HistoryPersistenceMaxQPS.Key():                     unlimitedRPS,
		dynamicconfig.MatchingPersistenceMaxQPS.Key():                    unlimitedRPS,

		dynamicconfig.ShardIOConcurrency.Key():                      shardRequests,
		dynamicconfig.TransferProcessorSchedulerWorkerCount.Key():   transferWorkers,
		dynamicconfig.TimerProcessorSchedulerWorkerCount.Key():      timerWorkers,
		dynamicconfig.VisibilityProcessorSchedulerWorkerCount.Key(): listWorkers,

		dynamicconfig.HistoryCacheTTL.Key(): stateKept,
		dynamicconfig.HistoryCacheBackgroundEvict.Key(): dynamicconfig.CacheBackgroundEvictSettings{
			Enabled: true, LoopInterval: stateKept / 8, MaxEntryPerCall: 1024,
		},
		// All workers of the process share the cache that Temporal's own make first.
		dynamicconfig.WorkerStickyCacheSize.Key(): cachedWorkflows,
		dynamicconfig.XDCCacheMaxSizeBytes.Key():  1 << 10, // of what other clusters ask for: there are none

		dynamicconfig.EnableServerVersionCheck.Key(): false, // it calls out

		// Let a cancelled activity learn of it without a heartbeat; nothing depends on them.
		dynamicconfig.WorkerCommandsEnabled.Key():             true,
		dynamicconfig.EnableCancelActivityWorkerCommand.Key(): true,
		// Else a task goes to the open poll of a worker that is stopping, and is
		// handed out again only after 10 s.
		dynamicconfig.EnableCancelWorkerPollsOnShutdown.Key(): true,
	}
}

// hosts tells each service where the others are.
func hosts(listen *net.TCPAddr, internal internalPorts) map[primitives.ServiceName]static.Hosts {
	return map[primitives.ServiceName]static.Hosts{
		primitives.FrontendService: static.SingleLocalHost(dialable(listen)),
		primitives.HistoryService:  static.SingleLocalHost(loopback(internal.history)),
		primitives.MatchingService: static.SingleLocalHost(loopback(internal.matching)),
		"worker":                   static.SingleLocalHost(loopback(internal.worker)),
	}
}
