package dispatch

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"taskrunner/internal/task"
)

// result labels an attempt in the metrics.
type result int

const (
	resultDone    result = iota // accepted
	resultRetry                 // failed, will be sent again
	resultFailed                // failed for good
	resultRefused               // by the guard
	resultCount
)

var resultNames = [resultCount]string{"done", "retry", "failed", "refused"}

// metrics of one trigger, looked up once.
type triggerMetrics struct {
	requests [resultCount]prometheus.Counter
	duration prometheus.Observer
	inFlight prometheus.Gauge
	dead     prometheus.Counter
}

type metrics struct {
	start, end           *triggerMetrics
	cancel, batch        *triggerMetrics
	cancelActionsIgnored prometheus.Counter
}

// newMetrics has no label for hosts: there is no bound to them.
func newMetrics(r prometheus.Registerer) *metrics {
	auto := promauto.With(r)
	requests := auto.NewCounterVec(prometheus.CounterOpts{
		Name: "webhook_requests_total",
		Help: "Webhook requests by trigger and outcome: done, retry, failed for good, or refused by the address guard.",
	}, []string{"trigger", "outcome"})
	duration := auto.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "webhook_duration_seconds",
		Help:    "Time from sending a webhook request to the end of its answer.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
	}, []string{"trigger"})
	inFlight := auto.NewGaugeVec(prometheus.GaugeOpts{
		Name: "webhooks_in_flight",
		Help: "Webhook requests that are out now.",
	}, []string{"trigger"})
	dead := auto.NewCounterVec(prometheus.CounterOpts{
		Name: "deliveries_dead_total",
		Help: "End and cancel actions of tasks, and actions of batches, that were given up.",
	}, []string{"trigger"})
	of := func(trigger task.Trigger) *triggerMetrics {
		name := triggerName(trigger)
		t := &triggerMetrics{duration: duration.WithLabelValues(name), inFlight: inFlight.WithLabelValues(name)}
		for i, outcome := range resultNames {
			t.requests[i] = requests.WithLabelValues(name, outcome)
		}
		if trigger != task.TriggerStart {
			t.dead = dead.WithLabelValues(name)
		}
		return t
	}
	return &metrics{
		start: of(task.TriggerStart), end: of(task.TriggerSuccess), cancel: of(task.TriggerCancel),
		batch: of(task.TriggerBatchComplete),
		cancelActionsIgnored: auto.NewCounter(prometheus.CounterOpts{
			Name: "cancel_actions_ignored_total",
			Help: "Answers to on_start that held a cancel action which cannot be used.",
		}),
	}
}

func (m *metrics) of(trigger task.Trigger) *triggerMetrics {
	switch trigger {
	case task.TriggerStart:
		return m.start
	case task.TriggerCancel:
		return m.cancel
	case task.TriggerBatchComplete:
		return m.batch
	}
	return m.end
}
