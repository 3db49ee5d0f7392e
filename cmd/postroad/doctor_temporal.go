package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"

	"postroad/contract"
	"postroad/store"
)

const (
	// workflowTaskAttemptsMax and activityAttemptsMax are how often something is
	// tried before it counts as stuck.
	workflowTaskAttemptsMax = 3
	activityAttemptsMax     = 5
)

func (d *doctor) checkNamespace(ctx context.Context) bool {
	const check = "namespace"
	name := d.options.Namespace
	_, err := d.temporal.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: name})
	var missing *serviceerror.NamespaceNotFound
	var notFound *serviceerror.NotFound
	switch {
	case errors.As(err, &missing) || errors.As(err, &notFound):
		d.fail(check, fmt.Sprintf("Run `temporal operator namespace create --namespace %s --retention 72h` (Temporal Cloud: `tcld namespace create`), or set TEMPORAL_NAMESPACE.", name),
			"Temporal has no namespace %s.", name)
		return false
	case err != nil:
		d.fail(check, "Check TEMPORAL_API_KEY or the client certificate.", "Temporal does not tell of namespace %s: %v.", name, err)
		return false
	}
	d.ok(check, "Temporal has the namespace %s.", name)
	return true
}

func (d *doctor) examineTemporal(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, doctorMax)
	defer cancel()
	if info, err := d.temporal.WorkflowService().GetClusterInfo(ctx, &workflowservice.GetClusterInfoRequest{}); err != nil {
		d.fail("temporal", "", "Temporal does not tell its id: %v.", err)
	} else if d.ok("temporal", "Temporal %s answers.", info.GetServerVersion()); d.schemaThere() {
		d.checkInstallation(ctx, store.Installation{ClusterID: info.GetClusterId(), Namespace: d.options.Namespace})
	}
	d.checkAttributes(ctx)
	for queue, kinds := range map[string][]enumspb.TaskQueueType{
		contract.TaskQueue:        {enumspb.TASK_QUEUE_TYPE_WORKFLOW, enumspb.TASK_QUEUE_TYPE_ACTIVITY},
		contract.ControlTaskQueue: {enumspb.TASK_QUEUE_TYPE_ACTIVITY},
	} {
		for _, kind := range kinds {
			d.checkPollers(ctx, queue, kind)
		}
	}
	if d.schemaThere() {
		d.checkNeglected(ctx)
	}
	d.ok("temporal-settings", "Of a server of your own, set history.transferProcessorMaxPollRPS to 2000: the default of 20 delays tasks by 50 ms. It cannot be read from here.")
}

// schemaThere says whether the database can be asked.
func (d *doctor) schemaThere() bool {
	return slices.ContainsFunc(d.findings, func(f diagnosis) bool { return f.Check == "schema" && f.Level == levelOK })
}

func (d *doctor) checkAttributes(ctx context.Context) {
	const check = "search-attributes"
	there, err := d.temporal.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: d.options.Namespace})
	var missing []string
	for _, name := range slices.Sorted(maps.Keys(searchAttributes)) {
		if _, ok := there.GetCustomAttributes()[name]; !ok {
			missing = append(missing, name)
		}
	}
	if err == nil && len(missing) == 0 {
		d.ok(check, "The namespace has %s.", strings.Join(slices.Sorted(maps.Keys(searchAttributes)), " and "))
		return
	}
	text := fmt.Sprintf("The namespace lacks %s", strings.Join(missing, " and "))
	if err != nil {
		text = fmt.Sprintf("Temporal does not list them (%v)", err)
	}
	d.warn(check, attributeCommands(d.options.Namespace, missing),
		"%s: deliveries do without, and Temporal's UI cannot filter by them. Workers notice at their next start.", text)
}

// attributeCommands are what adds search attributes.
func attributeCommands(namespace string, missing []string) string {
	own, cloud := "temporal operator search-attribute create --namespace "+namespace, "tcld namespace search-attributes add --namespace "+namespace
	for _, name := range missing {
		own += " --name " + name + " --type " + searchAttributes[name]
		cloud += " --sa " + name + "=" + searchAttributes[name]
	}
	return "Run `" + own + "`; in Temporal Cloud `" + cloud + "`."
}

func (d *doctor) checkPollers(ctx context.Context, queue string, kind enumspb.TaskQueueType) {
	const check = "pollers"
	what := strings.ToLower(kind.String()) + " tasks of the queue " + queue
	answer, err := d.temporal.DescribeTaskQueue(ctx, queue, kind)
	if err != nil {
		d.fail(check, "", "Temporal does not tell who polls the %s: %v.", what, err)
		return
	}
	var last time.Time
	for _, poller := range answer.GetPollers() {
		if at := poller.GetLastAccessTime().AsTime(); at.After(last) {
			last = at
		}
	}
	if len(answer.GetPollers()) == 0 {
		d.fail(check, "Start a worker with this address and namespace.", "Nobody polls the %s.", what)
		return
	}
	d.ok(check, "%d poll the %s.", len(answer.GetPollers()), what)
	// A poll cannot have begun later than now: all there is to tell the clock by.
	if ahead := time.Until(last); ahead > skewMax {
		d.warn("clocks", "Let both keep time by NTP.", "Temporal's clock is at least %s ahead of this machine's.", ahead.Round(time.Millisecond))
	}
}

// checkNeglected looks at the workflows of subscribers that nobody looks after.
func (d *doctor) checkNeglected(ctx context.Context) {
	const check = "subscribers"
	ids, err := d.store.SweepRows(ctx, d.neglected, listMax)
	if err != nil {
		d.fail(check, "", "%v.", err)
		return
	}
	if len(ids) == 0 {
		d.ok(check, "Somebody looks after every subscriber that has something to do.")
		return
	}
	for _, id := range ids {
		d.fail(check, "If workers run, run `postroad doctor --rebuild "+id+"`.", "Nobody has looked after %s for %s: %s.", id, d.neglected, d.runOf(ctx, id))
	}
	if len(ids) == listMax {
		d.fail(check, "Begin with the workers: look at their logs and pollers.", "There are more like these than the %d listed.", listMax)
	}
}

// runOf says in a few words what is the matter with a subscriber's workflow.
func (d *doctor) runOf(ctx context.Context, id string) string {
	run, err := d.temporal.DescribeWorkflowExecution(ctx, contract.SubscriberWorkflowID(id), "")
	var missing *serviceerror.NotFound
	if errors.As(err, &missing) {
		return "it has no workflow"
	}
	if err != nil {
		return "its workflow cannot be read: " + err.Error()
	}
	info := run.GetWorkflowExecutionInfo()
	if info.GetStatus() != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
		return "its workflow is closed (" + info.GetStatus().String() + ")"
	}
	if task := run.GetPendingWorkflowTask(); task.GetAttempt() > workflowTaskAttemptsMax {
		return fmt.Sprintf("its workflow task has failed %d times", task.GetAttempt()-1)
	} else if task != nil {
		return "its workflow waits for a worker"
	}
	for _, activity := range run.GetPendingActivities() {
		if activity.GetAttempt() > activityAttemptsMax {
			return fmt.Sprintf("%s has failed %d times, last with %q", activity.GetActivityType().GetName(), activity.GetAttempt()-1, activity.GetLastFailure().GetMessage())
		}
	}
	return fmt.Sprintf("its workflow is open, with %d activities pending", len(run.GetPendingActivities()))
}
