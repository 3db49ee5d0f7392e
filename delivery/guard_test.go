package delivery

import (
	"errors"
	"net/netip"
	"testing"
)

func TestCheckAddr(t *testing.T) {
	t.Parallel()
	blocked := []string{
		"0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255", "100.100.100.200",
		"127.0.0.1", "127.255.255.254", "168.63.129.16", "169.254.0.1", "169.254.169.254", "172.16.0.1", "172.31.255.255",
		"192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.19.255.255", "198.51.100.1",
		"203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
		"::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "::ffff:0:127.0.0.1",
		"64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "64:ff9b::808:808", "100::1", "2001::1", "2001:2::1", "2001:10::1", "2001:20::1",
		"2001:db8::1", "2002:7f00:1::1", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0",
		"fec0::1", "ff02::1",
	}
	public := []string{
		"1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.1", "100.63.255.255", "100.128.0.1", "126.255.255.255", "128.0.0.1",
		"169.253.255.255", "169.255.0.1", "172.15.255.255", "172.32.0.1", "192.167.255.255", "192.169.0.1", "198.17.255.255",
		"198.20.0.1", "223.255.255.255", "::ffff:8.8.8.8", "2606:4700:4700::1111", "2a00:1450:4001::1", "2001:200::1",
	}
	g := NewGuard(GuardConfig{})
	for _, s := range blocked {
		var blocked *BlockedError
		if err := g.CheckAddr(netip.MustParseAddr(s)); !errors.As(err, &blocked) {
			t.Errorf("CheckAddr(%s) = %v; want it blocked", s, err)
		}
	}
	for _, s := range public {
		if err := g.CheckAddr(netip.MustParseAddr(s)); err != nil {
			t.Errorf("CheckAddr(%s) = %v; want it admitted", s, err)
		}
	}
	if g.CheckAddr(netip.Addr{}) == nil {
		t.Error("an invalid address is admitted")
	}
}

func TestCheckAddrAllowed(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, addr string
		cfg        GuardConfig
		ok         bool
	}{
		{"loopback", "127.0.0.1", GuardConfig{AllowLoopback: true}, true},
		{"loopback of IPv6", "::1", GuardConfig{AllowLoopback: true}, true},
		{"loopback in mapped form", "::ffff:127.0.0.1", GuardConfig{AllowLoopback: true}, true},
		{"loopback is not the unspecified address", "0.0.0.0", GuardConfig{AllowLoopback: true}, false},
		{"loopback is not private", "10.0.0.1", GuardConfig{AllowLoopback: true}, false},
		{"http is not loopback", "127.0.0.1", GuardConfig{AllowHTTP: true}, false},
		{"prefix", "10.1.2.3", GuardConfig{AllowedPrefixes: prefixes("10.1.0.0/16")}, true},
		{"prefix with host bits", "10.1.2.3", GuardConfig{AllowedPrefixes: prefixes("10.1.9.9/16")}, true},
		{"prefix for the mapped form", "::ffff:10.1.2.3", GuardConfig{AllowedPrefixes: prefixes("10.1.0.0/16")}, true},
		{"prefix in mapped form", "10.1.2.3", GuardConfig{AllowedPrefixes: prefixes("::ffff:10.1.0.0/112")}, true},
		{"beside the prefix", "10.2.0.1", GuardConfig{AllowedPrefixes: prefixes("10.1.0.0/16")}, false},
		{"prefix of IPv6", "fd12::1", GuardConfig{AllowedPrefixes: prefixes("fd12::/16")}, true},
		{"a zone does not hide", "fe80::1%eth0", GuardConfig{AllowedPrefixes: prefixes("fe80::/10")}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if err := NewGuard(tt.cfg).CheckAddr(netip.MustParseAddr(tt.addr)); (err == nil) != tt.ok {
				t.Errorf("CheckAddr(%s) = %v; want admitted: %v", tt.addr, err, tt.ok)
			}
		})
	}
}

func TestCheckEndpoint(t *testing.T) {
	t.Parallel()
	dev := GuardConfig{AllowHTTP: true, AllowLoopback: true}
	tests := []struct {
		url string
		cfg GuardConfig
		ok  bool
	}{
		{"https://consumer.example/hook?key=1", GuardConfig{}, true},
		{"https://consumer.example:8443/", GuardConfig{}, true},
		{"https://8.8.8.8/", GuardConfig{}, true},
		{"https://[2606:4700:4700::1111]:443/", GuardConfig{}, true},
		{"https://xn--bcher-kva.example/", GuardConfig{}, true},
		{"https://1e100.net/", GuardConfig{}, true},
		{"https://0xdecaf.example/", GuardConfig{}, true},
		{"http://consumer.example/", GuardConfig{}, false},
		{"http://consumer.example/", GuardConfig{AllowHTTP: true}, true},
		{"http://consumer.example/", GuardConfig{AllowLoopback: true}, false},
		{"http://10.0.0.1/", GuardConfig{AllowLoopback: true}, false},
		{"http://127.0.0.1.example/", GuardConfig{AllowLoopback: true}, false},
		{"http://127.0.0.1/", GuardConfig{AllowLoopback: true}, true},
		{"http://[::1]/", GuardConfig{AllowLoopback: true}, true},
		{"http://localhost/", GuardConfig{AllowLoopback: true}, true},
		{"http://127.0.0.1/", GuardConfig{}, false},
		{"http://localhost:8080/", GuardConfig{AllowHTTP: true}, false},
		{"http://8.8.8.8/", GuardConfig{AllowLoopback: true}, false},
		{"ftp://consumer.example/", dev, false},
		{"file:///etc/passwd", dev, false},
		{"//consumer.example/", dev, false},
		{"https://", dev, false},
		{"https://:443/", dev, false},
		{"https://user:secret@consumer.example/", dev, false},
		{"https://127.0.0.1/", GuardConfig{}, false},
		{"https://127.0.0.1/", dev, true},
		{"https://[::1]/", GuardConfig{}, false},
		{"https://[::1]/", dev, true},
		{"https://[::ffff:10.0.0.1]/", dev, false},
		{"https://[fe80::1%25eth0]/", dev, false},
		{"https://10.0.0.1/", dev, false},
		{"https://10.0.0.1./", dev, false},
		{"https://169.254.169.254/latest/meta-data", dev, false},
		{"https://2130706433/", dev, false},
		{"https://0177.0.0.1/", dev, false},
		{"https://0x7f.0.0.1/", dev, false},
		{"https://0x7f000001/", dev, false},
		{"https://127.1/", dev, false},
		{"https://1.2.3.4.5/", dev, false},
		{"https://0x/", dev, false},
		{"https://１２７.０.０.１/", dev, false},
		{"https://localhost/", GuardConfig{}, false},
		{"https://LocalHost./", GuardConfig{}, false},
		{"https://app.localhost:8080/", GuardConfig{}, false},
		{"https://localhost:8080/", dev, true},
		{"https://notlocalhost/", GuardConfig{}, true},
		{"https://ip6-localhost/", GuardConfig{}, false},
		{"https://%31%32%37.0.0.1/", dev, false},
	}
	for _, tt := range tests {
		t.Run(tt.url, func(t *testing.T) {
			t.Parallel()
			if err := NewGuard(tt.cfg).CheckEndpoint(tt.url); (err == nil) != tt.ok {
				t.Errorf("CheckEndpoint(%s) = %v; want admitted: %v", tt.url, err, tt.ok)
			}
		})
	}
}
