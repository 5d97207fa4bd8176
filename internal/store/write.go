package store

import (
	"context"
	"fmt"
	"time"
)

// Acquire implements Store.
func (t *Table) Acquire(ctx context.Context, r Request, cond Conditions) (res Result, err error) {
	res.Doubt, err = t.do(ctx, r, func(ctx context.Context, c *call) (err error) {
		if t.inTransaction && !t.sure.Load() {
			// A statement that the server doesn't understand would abort the transaction.
			if _, err := c.d.get(ctx, c); err != nil {
				return err
			}
		}
		res, err = c.d.acquire(ctx, c, cond)
		switch {
		case err != nil:
			return err
		case res.Done:
			return c.grown(ctx, res)
		case res.Refusal == Available:
			return errRaced // what could have been taken is another's
		case t.inTransaction && res.Prev.HeldBy(r):
			return c.confirm(ctx, res.Prev)
		}
		return nil
	})
	return res, err
}

// grown makes sure that the lock time has grown, since it is the fencing token.
func (c *call) grown(ctx context.Context, res Result) error {
	if !res.Prev.Exists && res.Prev.LockTime.Equal(earliest) || res.Written.After(res.Prev.LockTime) {
		return nil
	}
	c.release(ctx, Term{First: res.Written, Last: res.Written}, c.req.JobID)
	return fmt.Errorf("the new lock_time, %s, is not after the one before, %s: the column must keep "+
		"microseconds (TIMESTAMPTZ), and no row may lie in the far future",
		res.Written.Format(time.RFC3339Nano), res.Prev.LockTime.Format(time.RFC3339Nano))
}

// Renew implements Store.
func (t *Table) Renew(ctx context.Context, r Request, term Term) (res Result, err error) {
	res.Doubt, err = t.do(ctx, r, func(ctx context.Context, c *call) (err error) {
		var written scalar
		res = Result{}
		if c.doubt { // an attempt may have moved the lock time, and may yet
			term = term.Widen()
		}
		res.Done, err = c.write(ctx, "renew", []any{r.ComponentName, r.ComponentID, r.JobName, r.JobID,
			instant(term.First), instant(term.Last), micros(term.TTL)}, &written, &res.Prev.Enabled)
		if err == nil && !res.Done {
			res.Prev, err = c.d.get(ctx, c)
		}
		res.Written = written.time()
		return err
	})
	return res, err
}

// Release implements Store.
func (t *Table) Release(ctx context.Context, r Request, term Term, run string) (
	res Result, err error) {
	res.Doubt, err = t.do(ctx, r, func(ctx context.Context, c *call) (err error) {
		res = Result{}
		if res.Done, err = c.release(ctx, term, run); err != nil || res.Done {
			return err
		}
		if res.Prev, err = c.d.get(ctx, c); err != nil {
			return err
		}
		switch {
		case term.Holds(r, res.Prev):
			return errRaced
		case t.inTransaction && !res.Prev.Locked:
			return c.confirm(ctx, res.Prev)
		}
		return nil
	})
	return res, err
}

func (c *call) release(ctx context.Context, term Term, run string) (done bool, err error) {
	r := c.req
	return c.write(ctx, "release", []any{r.ComponentName, r.ComponentID, r.JobName, r.JobID,
		instant(term.First), instant(term.Last), run}, &done)
}

// Enable implements Store.
func (t *Table) Enable(ctx context.Context, r Request, enabled bool) error {
	_, err := t.do(ctx, r, func(ctx context.Context, c *call) error {
		return c.exec(ctx, "enable", r.ComponentName, r.JobName, fmt.Sprint(enabled))
	})
	return err
}

// Delete implements Store.
func (t *Table) Delete(ctx context.Context, r Request) (res Result, err error) {
	res.Doubt, err = t.do(ctx, r, func(ctx context.Context, c *call) (err error) {
		res = Result{}
		res.Done, err = c.write(ctx, "delete", []any{r.ComponentName, r.JobName}, &res.Done)
		if err != nil || res.Done {
			return err
		}
		if res.Prev, err = c.d.get(ctx, c); err == nil && res.Prev.Exists && !res.Prev.Locked {
			return errRaced
		}
		return err
	})
	return res, err
}
