package store

import (
	"database/sql"
	"fmt"
	"math"
	"strconv"
	"time"
)

// columns returns the destinations of the columns of a record. NULL leaves them as they are.
func (rec *Record) columns() []any {
	return []any{column[string]{&rec.ComponentID}, column[string]{&rec.JobID},
		column[bool]{&rec.Enabled}, column[bool]{&rec.Locked},
		(*microsecond)(&rec.LockTime), (*microsecond)(&rec.Now)}
}

// A column is scanned into a value, which NULL leaves as it is.
type column[T any] struct{ to *T }

func (c column[T]) Scan(v any) error {
	if v == nil {
		return nil
	}
	var value sql.Null[T]
	err := value.Scan(v)
	*c.to = value.V
	return err
}

// A microsecond is a time that is scanned from a time or a number of microseconds since 1970.
// NULL leaves it as it is.
type microsecond time.Time

func (m *microsecond) Scan(v any) error {
	var s scalar
	if err := s.Scan(v); err != nil {
		return err
	}
	switch {
	case !s.valid:
		return nil
	case s.text == "infinity":
		s.text = strconv.Itoa(math.MaxInt64)
	case s.text == "-infinity":
		s.text = strconv.Itoa(math.MinInt64)
	}
	n, err := strconv.ParseInt(s.text, 10, 64)
	if err != nil {
		return fmt.Errorf("%q is not a number of microseconds", s.text)
	}
	t := time.UnixMicro(n).UTC()
	if t.Before(earliest) { // written by hand, in SQLite
		t = earliest
	} else if t.After(latest) {
		t = latest
	}
	*m = microsecond(t)
	return nil
}

// A scalar is a text, a number, a time as microseconds since 1970, or NULL.
type scalar struct {
	text  string
	valid bool // not NULL
}

func (s *scalar) Scan(v any) error {
	switch v := v.(type) {
	case nil:
		*s = scalar{}
	case int64:
		*s = scalar{strconv.FormatInt(v, 10), true}
	case string:
		*s = scalar{v, true}
	case []byte:
		*s = scalar{string(v), true}
	case time.Time:
		*s = scalar{strconv.FormatInt(v.UnixMicro(), 10), true}
	case bool:
		*s = scalar{strconv.FormatBool(v), true}
	default:
		return fmt.Errorf("%v is of type %T, not a text or a number", v, v)
	}
	return nil
}

// time returns the time of a number of microseconds since 1970; NULL is the zero time.
func (s scalar) time() time.Time {
	n, err := strconv.ParseInt(s.text, 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.UnixMicro(n).UTC()
}

// micros is a duration as an argument: text, which every driver passes on unchanged. No duration
// is NULL.
func micros(d time.Duration) any {
	if d <= 0 {
		return nil
	}
	return strconv.FormatInt(d.Microseconds(), 10)
}

// Lock times are read as within the years 1 to 9999. One at these bounds may be beyond them.
var (
	earliest = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)
	latest   = time.Date(9999, 12, 31, 23, 59, 59, 999999000, time.UTC)
)

// bounded reports whether a time is within what is read. As an argument, other times are NULL.
func bounded(t time.Time) bool { return t.After(earliest) && t.Before(latest) }

// microseconds is a time as an argument: a number of microseconds since 1970.
func microseconds(t time.Time) any {
	if !bounded(t) {
		return nil
	}
	return strconv.FormatInt(t.UnixMicro(), 10)
}

// timestamp is a time as an argument: its text.
func timestamp(t time.Time) any {
	if !bounded(t) {
		return nil
	}
	return t.UTC().Format(time.RFC3339Nano)
}
