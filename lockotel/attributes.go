package lockotel

import (
	"cmp"
	"errors"

	"go.opentelemetry.io/otel/attribute"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/observed"
)

const (
	componentName     = attribute.Key("lock.component.name")
	componentID       = attribute.Key("lock.component.id")
	jobName           = attribute.Key("lock.job.name")
	jobID             = attribute.Key("lock.job.id")
	operationName     = attribute.Key("lock.operation.name")
	operationResult   = attribute.Key("lock.operation.result")
	refusalReason     = attribute.Key("lock.refusal.reason")
	lossReason        = attribute.Key("lock.loss.reason")
	holderComponentID = attribute.Key("lock.holder.component.id")
	holderJobID       = attribute.Key("lock.holder.job.id")
	holderAge         = attribute.Key("lock.holder.age")
	token             = attribute.Key("lock.token")

	// Of the semantic conventions.
	errorTypeKey = attribute.Key("error.type")
	sqlState     = attribute.Key("db.response.status_code")
)

// attributes are those of few values, of metrics and spans alike.
func attributes(e lock.Event) []attribute.KeyValue {
	all := make([]attribute.KeyValue, 0, 16) // has room for the identities
	all = append(all, componentName.String(e.ComponentName), jobName.String(e.JobName))
	switch e.Kind {
	case lock.Lost: // by no call
		all = append(all, lossReason.String(observed.Loss(e)))
	case lock.Refused:
		all = append(all, operationName.String(e.Operation), operationResult.String("refused"),
			refusalReason.String(observed.Refusal(e)))
	default:
		all = append(all, operationName.String(e.Operation), operationResult.String(string(e.Kind)))
	}
	if t := errorType(e); t != "" {
		all = append(all, errorTypeKey.String(t))
	}
	return all
}

// identities are the attributes for spans alone.
func identities(e lock.Event) []attribute.KeyValue {
	all := make([]attribute.KeyValue, 0, 8)
	if e.ComponentID != "" || e.JobID != "" {
		all = append(all, componentID.String(e.ComponentID), jobID.String(e.JobID))
	}
	if e.Holder != (lock.Holder{}) {
		all = append(all, holderComponentID.String(e.Holder.ComponentID),
			holderJobID.String(e.Holder.JobID),
			holderAge.Float64(e.Holder.Age.Seconds()))
	}
	if e.Token != 0 {
		all = append(all, token.Int64(e.Token))
	}
	var db interface{ SQLState() string }
	if errors.As(e.Err, &db) {
		all = append(all, sqlState.String(db.SQLState()))
	}
	return all
}

// errorType is the class of the error that an event is, or "".
func errorType(e lock.Event) string {
	switch {
	case e.Kind == lock.Failed:
		return cmp.Or(observed.Failure(e), "_OTHER")
	case e.Kind == lock.Lost, e.Kind == lock.Refused && observed.Refusal(e) == observed.Lost:
		return observed.Lost
	}
	return ""
}
