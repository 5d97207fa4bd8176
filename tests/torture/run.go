//go:build linux

package torture

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Options configure a run.
type Options struct {
	Dir string // for the histories, and what is found
	Exe string // of a program that begins with Main
	// Skewed is the same with a wrong clock (see BuildSkewed), for some of the processes; "" means
	// none.
	Skewed     string
	Processes  int
	Goroutines int // of each
	Jobs       int
	TTL        time.Duration // the shortest of the jobs; the longest that ends is five times as long
	// operations, after which the history is checked, and the jobs are other ones
	Round      int
	Rounds     int           // at least so many
	Duration   time.Duration // and at least so long
	Operations int           // and at least so many
	Faults     int           // at least so many in each round; 0 means that there is no nemesis
	// of so many statements of a client one request and one reply is lost; 0: none
	Lose      int
	Pause     time.Duration // the mean time between two faults
	FailOver  int           // every so many rounds; 0 means never
	Cockroach int           // nodes of a CockroachDB cluster; 0 means PostgreSQL
	Seed      uint64
	Variant   string
	// StopEarly stops at the first violation. Short rounds become longer, each twice as long as the
	// one before: most violations are there at once.
	StopEarly bool
	Out       io.Writer

	in *cluster // nil: one of its own
}

// A Report is the result of a run.
type Report struct {
	Verdict
	Faults map[string]int
	Rounds int
	Took   time.Duration
	Skewed int // processes whose clock was wrong
	Guilty int // after how many operations the first violation was there, if there was one
}

// Injected is the number of faults.
func (r Report) Injected() (n int) {
	for _, k := range r.Faults {
		n += k
	}
	return n
}

// hang limits a round: if it takes longer, something is wrong.
const hang = 15 * time.Minute

// A fleet has the client processes of a round.
type fleet struct {
	operations atomic.Int64
	progress   chan struct{} // there is a value in it after each operation and each fault

	mu     sync.Mutex
	live   []*os.Process
	inputs []io.Closer // which end with the round
	logs   []string
	skewed int
	ended  bool
}

// Write counts operations: clients write a byte for each.
func (f *fleet) Write(p []byte) (int, error) {
	f.operations.Add(int64(len(p)))
	f.advance()
	return len(p), nil
}

func (f *fleet) advance() {
	select {
	case f.progress <- struct{}{}:
	default:
	}
}

// await waits until done reports that there have been enough operations and faults.
func (f *fleet) await(ctx context.Context, done func() bool) error {
	for !done() {
		select {
		case <-f.progress:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (f *fleet) process(r *rand.Rand) *os.Process {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.live) == 0 {
		return nil
	}
	return f.live[r.IntN(len(f.live))]
}

// end tells the clients that the round is over.
func (f *fleet) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	for _, input := range f.inputs {
		input.Close()
	}
}

func (f *fleet) kill() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.live {
		p.Kill()
	}
}

// keep runs a client process until the round is over, and another one whenever it is killed.
func (f *fleet) keep(o Options, c Client, number func() int, place int) {
	for {
		f.mu.Lock()
		if f.ended {
			f.mu.Unlock()
			return
		}
		c.Number = number()
		c.Log = filepath.Join(o.Dir, fmt.Sprintf("client-%d.jsonl", c.Number))
		c.Seed = o.Seed<<20 + uint64(c.Number)
		config, _ := json.Marshal(c)
		cmd := exec.Command(o.Exe)
		cmd.Env = append(os.Environ(), clientEnv+"="+string(config))
		if o.Skewed != "" && place%2 == 1 {
			cmd.Path, cmd.Args = o.Skewed, []string{o.Skewed}
			// five hours behind, or as many ahead
			cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%d", skewEnv, (place%4-2)*5*3600))
			f.skewed++
		}
		cmd.Stdout, cmd.Stderr = f, o.Out
		input, err := cmd.StdinPipe()
		// No client outlives the harness.
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			f.mu.Unlock()
			fmt.Fprintln(o.Out, "client:", err)
			return
		}
		f.logs, f.inputs = append(f.logs, c.Log), append(f.inputs, input)
		f.live = append(f.live, cmd.Process)
		f.mu.Unlock()
		cmd.Wait()
		f.mu.Lock()
		f.live = slices.DeleteFunc(f.live, func(p *os.Process) bool { return p == cmd.Process })
		f.mu.Unlock()
	}
}

// Run runs rounds until the time is up and the operations are done, and reports the result.
func Run(ctx context.Context, o Options) (report Report, err error) {
	report.Faults = map[string]int{}
	c := o.in
	if c == nil {
		if c, err = startCluster(o.Cockroach, o.Processes); err != nil {
			return report, err
		}
		defer c.Close()
	}
	begun := time.Now()
	var last int
	number := func() int { last++; return last } // with the fleet's mutex held
	r := rand.New(rand.NewPCG(o.Seed, 1))
	for report.Rounds == 0 || (report.Rounds < o.Rounds || time.Since(begun) < o.Duration ||
		report.Operations < o.Operations) {
		report.Rounds++
		failing := o.Faults > 0 && o.FailOver > 0 && report.Rounds%o.FailOver == 0
		if failing {
			if err := c.addStandby(true); err != nil {
				return report, err
			}
		}
		history, jobs, logs, err := o.round(ctx, c, &report, number, r)
		if err != nil {
			return report, err
		}
		written, err := c.written(jobs[0].Name)
		if err != nil {
			return report, err
		}
		verdict := Check(history, written)
		for _, v := range verdict.Violations {
			v.Print(o.Out, o.Dir)
			if after := report.Operations + v.After; report.Guilty == 0 || after < report.Guilty {
				report.Guilty = after
			}
		}
		report.Add(verdict)
		report.Took = time.Since(begun)
		fmt.Fprintf(o.Out,
			"round %d: %d operations (%d in all), %d with an unknown outcome, %d faults in all, %d "+
				"violations, %d undecided, %v\n", report.Rounds,
			verdict.Operations, report.Operations, verdict.Unknown, report.Injected(),
			len(report.Violations), len(report.Undecided), report.Took.Round(time.Second))
		if len(verdict.Violations) == 0 {
			for _, path := range logs {
				os.Remove(path)
			}
		} else if o.StopEarly {
			break
		}
		if o.StopEarly && o.Round < 400 {
			o.Round *= 2
		}
	}
	return report, nil
}

func (o Options) round(ctx context.Context, c *cluster, report *Report, number func() int,
	r *rand.Rand) (history []Op, jobs []Job, logs []string, err error) {
	for _, n := range c.networks {
		n.noCancel.Store(c.standby != nil)
	}
	ctx, cancel := context.WithTimeout(ctx, hang)
	defer cancel()
	for i := range o.Jobs {
		j := Job{Name: fmt.Sprintf("%x/%d/%d", o.Seed, report.Rounds, i),
			Max: time.Duration(i%5+1) * o.TTL}
		if i%8 == 7 {
			j.Max = 0 // it never expires
		}
		j.Ticks = i%4 == 2
		jobs = append(jobs, j)
	}
	f := &fleet{progress: make(chan struct{}, 1)}
	var clients sync.WaitGroup
	for i := range o.Processes {
		c := Client{Driver: []string{"pgx", "postgres"}[i%2], DSN: c.dsn(i), Jobs: jobs,
			Goroutines: o.Goroutines,
			Pool:       max(2, o.Goroutines*3/4), Lose: o.Lose, Variant: o.Variant}
		clients.Go(func() { f.keep(o, c, number, i) })
	}
	done := make(chan struct{})
	go func() { clients.Wait(); close(done) }()
	if o.Faults > 0 {
		err = o.storm(ctx, c, f, report.Faults, r)
	}
	// The last fault is over before the clients are.
	quiet := max(int64(o.Round), f.operations.Load()+int64(o.Round)/10)
	if err == nil {
		err = f.await(ctx, func() bool { return f.operations.Load() >= quiet })
	}
	f.end()
	if err != nil {
		f.kill()
	}
	select {
	case <-done:
	case <-ctx.Done():
		f.kill()
		<-done
	}
	if err != nil {
		return nil, nil, nil, fmt.Errorf("the round did not end, after %d operations: %w",
			f.operations.Load(), err)
	}
	report.Skewed += f.skewed
	if err := c.settle(); err != nil {
		return nil, nil, nil, err
	}
	history, err = ReadHistory(f.logs...)
	return history, jobs, f.logs, err
}

// storm injects faults until there have been enough of them, and enough operations.
func (o Options) storm(ctx context.Context, c *cluster, f *fleet, faults map[string]int,
	r *rand.Rand) error {
	storm, cancel := context.WithCancel(ctx)
	var nemeses sync.WaitGroup
	all := &counts{of: faults, fleet: f}
	enough := all.sum() + o.Faults
	for _, server := range []bool{true, false} {
		n := &nemesis{c: c, fleet: f, r: rand.New(rand.NewPCG(r.Uint64(), r.Uint64())), pause: o.Pause,
			counts: all,
			report: func(format string, args ...any) {
				fmt.Fprintf(o.Out, "nemesis: "+format+"\n",
					args...)
			}}
		nemeses.Go(func() { n.run(storm, o.Round, server) })
	}
	err := f.await(ctx, func() bool {
		return f.operations.Load() >= int64(o.Round)*9/10 &&
			all.sum() >= enough
	})
	cancel()
	nemeses.Wait()
	for _, network := range c.networks {
		network.Heal()
		network.amid.Store(0)
	}
	return err
}

// Print writes the figures.
func (r Report) Print(w io.Writer) {
	fmt.Fprintf(w, "%d rounds in %v\n", r.Rounds, r.Took.Round(time.Second))
	r.Verdict.Print(w)
	fmt.Fprintf(w, "faults: %d\n", r.Injected())
	var names []string
	for name := range r.Faults {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(a, b) })
	for _, name := range names {
		fmt.Fprintf(w, "\t%8d %s\n", r.Faults[name], name)
	}
	if r.Guilty > 0 {
		fmt.Fprintf(w, "the first violation was there after %d operations\n", r.Guilty)
	}
	fmt.Fprintf(w, "client processes with a clock that was five hours wrong: %d\n", r.Skewed)
}
