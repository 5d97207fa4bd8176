package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"github.com/go-zookeeper/zk"
)

// zookeeperJar is where Debian's package zookeeper puts it.
const zookeeperJar = "/usr/share/java/zookeeper.jar"

const zookeeperConfig = `clientPortAddress=127.0.0.1
clientPort=%s
dataDir=%s
maxClientCnxns=0
admin.enableServer=false
4lw.commands.whitelist=mntr
`

var zookeeper = program{
	name: "ZooKeeper", file: "java",
	args: func(dir, port string) []string {
		config := filepath.Join(dir, "zoo.cfg")
		// Without it the server does not start, and says so.
		os.WriteFile(config, fmt.Appendf(nil, zookeeperConfig, port, dir), 0o666)
		return []string{"-cp", zookeeperJar, "org.apache.zookeeper.server.ZooKeeperServerMain", config}
	},
	question: "mntr",
	version:  regexp.MustCompile(`zk_version\t([\d.]+)`),
	requests: regexp.MustCompile(`zk_packets_received\t(\d+)`),
}

func startZooKeeper() (*server, error) {
	if _, err := os.Stat(zookeeperJar); err != nil {
		return nil, err
	}
	return zookeeper.launch()
}

func openZooKeeper(_ context.Context, s *server) (*instance, error) {
	conn, _, err := zk.Connect([]string{s.addr}, ttl, zk.WithLogInfo(false))
	if err != nil {
		return nil, err
	}
	lock := zk.NewLock(conn, "/job", zk.WorldACL(zk.PermAll))
	return &instance{
		acquire: func(ctx context.Context) error {
			defer context.AfterFunc(ctx, conn.Close)()
			return lock.Lock()
		},
		release: func(context.Context) error { return lock.Unlock() },
		close:   conn.Close,
	}, nil
}
