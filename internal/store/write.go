package store

import (
	"context"
	"fmt"
	"time"
)

// Acquire implements Store.
func (t *Table) Acquire(ctx context.Context, r Request, cond Conditions) (Result, error) {
	return t.write(ctx, r, func(ctx context.Context, c *call) (res Result, err error) {
		if t.inTransaction && !t.sure.Load() {
			// A statement that the server doesn't understand would abort the transaction.
			if _, err := c.d.get(ctx, c); err != nil {
				return res, err
			}
		}
		res, err = c.d.acquire(ctx, c, cond)
		switch {
		case err != nil:
			return res, err
		case res.Done:
			return res, c.grown(ctx, res)
		case res.Refusal == Available:
			return res, errRaced // a rival has acquired it
		case t.inTransaction && res.Prev.HeldBy(r):
			return res, c.confirm(ctx, res.Prev)
		}
		return res, nil
	})
}

// write runs a step that writes.
func (t *Table) write(ctx context.Context, r Request, step step[Result]) (Result, error) {
	res, doubt, err := do(ctx, t, writes, r, func(ctx context.Context, c *call) (Result, error) {
		sent := time.Now()
		res, err := step(ctx, c)
		res.Sent = sent
		return res, err
	})
	res.Doubt = doubt
	return res, err
}

// grown returns an error if the lock time, the fencing token, has not grown.
func (c *call) grown(ctx context.Context, res Result) error {
	if res.Prev.LockTime.Equal(earliest) || res.Written.After(res.Prev.LockTime) {
		return nil
	}
	c.release(ctx, Term{First: res.Written, Last: res.Written}, c.req.JobID)
	return fmt.Errorf("the new lock_time, %s, is not after the one before, %s: the column must keep "+
		"microseconds (TIMESTAMPTZ), and no row may lie in the far future",
		res.Written.Format(time.RFC3339Nano), res.Prev.LockTime.Format(time.RFC3339Nano))
}

// Renew implements Store.
func (t *Table) Renew(ctx context.Context, r Request, term Term) (Result, error) {
	return t.write(ctx, r, func(ctx context.Context, c *call) (res Result, err error) {
		var written, enabled scalar
		term := term
		if c.doubt { // an attempt may have moved the lock time, and may yet
			term = term.Widen()
		}
		res.Done, err = c.write(ctx, "renew", []any{r.ComponentName, r.ComponentID, r.JobName, r.JobID,
			c.d.instant(term.First), c.d.instant(term.Last), micros(term.TTL)}, &written, &enabled)
		res.Prev.Enabled = enabled.text != "false" && enabled.text != "0"
		if err == nil && !res.Done {
			res.Prev, err = c.d.get(ctx, c)
		}
		res.Written = written.time()
		return res, err
	})
}

// Release implements Store.
func (t *Table) Release(ctx context.Context, r Request, term Term, run string) (Result, error) {
	return t.write(ctx, r, func(ctx context.Context, c *call) (res Result, err error) {
		if res.Done, err = c.release(ctx, term, run); err != nil || res.Done {
			return res, err
		}
		if res.Prev, err = c.d.get(ctx, c); err != nil {
			return res, err
		}
		switch {
		case term.Holds(r, res.Prev):
			return res, errRaced
		case t.inTransaction && !res.Prev.Locked:
			return res, c.confirm(ctx, res.Prev)
		}
		return res, nil
	})
}

func (c *call) release(ctx context.Context, term Term, run string) (done bool, err error) {
	r := c.req
	return c.write(ctx, "release", []any{r.ComponentName, r.ComponentID, r.JobName, r.JobID,
		c.d.instant(term.First), c.d.instant(term.Last), run}, new(scalar))
}

// Enable implements Store.
func (t *Table) Enable(ctx context.Context, r Request, enabled bool) error {
	_, err := t.write(ctx, r, func(ctx context.Context, c *call) (Result, error) {
		return Result{}, c.exec(ctx, "enable", r.ComponentName, r.JobName, fmt.Sprint(enabled))
	})
	return err
}

// Delete implements Store.
func (t *Table) Delete(ctx context.Context, r Request) (Result, error) {
	return t.write(ctx, r, func(ctx context.Context, c *call) (res Result, err error) {
		res.Done, err = c.write(ctx, "delete", []any{r.ComponentName, r.JobName}, new(scalar))
		if err != nil || res.Done {
			return res, err
		}
		if res.Prev, err = c.d.get(ctx, c); err == nil && res.Prev.Exists && !res.Prev.Locked {
			err = errRaced
		}
		return res, err
	})
}
