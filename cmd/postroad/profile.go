package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/pprof"
	rpprof "runtime/pprof"
)

// listenProfile takes the address of the profiler, which is for this machine
// only: a profile shows addresses and takes time.
func listenProfile(ctx context.Context, address string) (*httpServer, error) {
	s, err := listenHTTP(ctx, "profiles", address)
	if err != nil || s.listener == nil {
		return s, err
	}
	if tcp, ok := s.listener.Addr().(*net.TCPAddr); !ok || !tcp.IP.IsLoopback() {
		return nil, errors.Join(usagef("--profile-listen %s is not on loopback", address), s.listener.Close())
	}
	return s, nil
}

// profileMux serves Go's profiles. Beside those of a length known beforehand
// there is one of the CPU that is started and, with the profile as the answer,
// stopped by a request.
func profileMux() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	var running bytes.Buffer
	mux.HandleFunc("POST /debug/cpu/start", func(w http.ResponseWriter, _ *http.Request) {
		running.Reset()
		if err := rpprof.StartCPUProfile(&running); err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST /debug/cpu/stop", func(w http.ResponseWriter, _ *http.Request) {
		rpprof.StopCPUProfile() // returns when all is written
		_, _ = w.Write(running.Bytes())
	})
	return mux
}
