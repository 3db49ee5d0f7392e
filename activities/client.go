package activities

import (
	"net/netip"

	"postroad/delivery"
)

// ClientConfig says which endpoints Deliver may call.
type ClientConfig struct {
	// AllowHTTPEndpoints admits endpoints without TLS.
	AllowHTTPEndpoints bool
	// AllowLoopback admits endpoints on this host, and AllowedPrefixes those on
	// the operator's own networks.
	AllowLoopback   bool
	AllowedPrefixes []netip.Prefix
	// Version is sent in User-Agent.
	Version string
}

// NewClient makes the client for Config.Client, for those who put a worker
// together and have no other business with delivery.
func NewClient(cfg ClientConfig) *delivery.Client {
	return delivery.NewClient(delivery.Config{
		Guard: delivery.GuardConfig{
			AllowHTTP: cfg.AllowHTTPEndpoints, AllowLoopback: cfg.AllowLoopback, AllowedPrefixes: cfg.AllowedPrefixes,
		},
		Version: cfg.Version,
	})
}
