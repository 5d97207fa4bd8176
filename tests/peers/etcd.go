package main

import (
	"context"
	"regexp"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

var etcd = program{
	name: "etcd", file: "etcd",
	args: func(dir, port string) []string {
		client, peer := "http://127.0.0.1:"+port, "http://127.0.0.1:"+freePort()
		return []string{"--name", "one", "--data-dir", dir + "/data", "--initial-cluster", "one=" + peer,
			"--listen-client-urls", client, "--advertise-client-urls", client,
			"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer}
	},
	question: "GET /metrics HTTP/1.0\r\n\r\n",
	version:  regexp.MustCompile(`etcd_server_version{server_version="(.*)"}`),
	requests: regexp.MustCompile(`(?m)^grpc_server_msg_received_total{.*} (\S+)`), // by method
}

func openEtcd(_ context.Context, s *server) (*instance, error) {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{s.addr}})
	if err != nil {
		return nil, err
	}
	session, err := concurrency.NewSession(client, concurrency.WithTTL(int(ttl.Seconds())))
	if err != nil {
		client.Close()
		return nil, err
	}
	mutex := concurrency.NewMutex(session, "job")
	return &instance{
		try: func(ctx context.Context) error {
			return refusal(mutex.TryLock(ctx), concurrency.ErrLocked)
		},
		acquire: mutex.Lock,
		release: mutex.Unlock,
		close: func() {
			session.Close()
			client.Close()
		},
	}, nil
}
