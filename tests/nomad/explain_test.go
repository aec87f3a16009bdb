// `explain` beside Nomad's own scheduler, in random clusters: placed or not, on how many nodes looked at,
// for which reasons and dimensions, it counts what the scheduler counted.
package nomad

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/hashicorp/go-msgpack/v2/codec"
	"github.com/hashicorp/nomad/helper/uuid"
	"github.com/hashicorp/nomad/nomad/mock"
	"github.com/hashicorp/nomad/nomad/state"
	"github.com/hashicorp/nomad/nomad/structs"
	"github.com/hashicorp/nomad/scheduler"
	"github.com/hashicorp/nomad/scheduler/tests"
)

const randomClusters = 300

// cluster is one random state and the job that is asked for.
type cluster struct {
	t       *testing.T
	random  *rand.Rand
	harness *tests.Harness
	nodes   []*structs.Node
	job     *structs.Job
}

func (c *cluster) oneIn(n int) bool { return c.random.Intn(n) == 0 }

func (c *cluster) between(low, high int) int { return low + c.random.Intn(high-low+1) }

func (c *cluster) choose(texts ...string) string { return texts[c.random.Intn(len(texts))] }

func (c *cluster) addNode(number int) {
	node := mock.Node()
	node.Name = fmt.Sprintf("node-%d", number)
	node.Datacenter = c.choose("dc1", "dc1", "dc1", "dc2")
	node.NodeClass = c.choose("", "ci", "build")
	node.Attributes["nomad.version"] = c.choose("1.11.3", "1.9.0", "1.12.0-dev")
	node.Meta = map[string]string{"rack": c.choose("r1", "r2"), "cores": strconv.Itoa(c.between(1, 32))}
	resources := node.NodeResources
	resources.Processors.Topology = structs.MockBasicTopology()
	for i := range resources.Processors.Topology.Cores {
		resources.Processors.Topology.Cores[i].Disable = c.oneIn(4)
	}
	if c.oneIn(2) {
		resources.Processors.Topology.OverrideTotalCompute = 4000
	}
	resources.Memory.MemoryMB = int64(c.between(1024, 8192))
	resources.Disk.DiskMB = int64(c.between(5000, 50000))
	if c.oneIn(3) {
		resources.MinDynamicPort, resources.MaxDynamicPort = 20000, 20000+c.between(0, 3)
	}
	if c.oneIn(3) {
		addresses := &resources.NodeNetworks[0].Addresses
		*addresses = append(*addresses, structs.NodeNetworkAddress{Alias: "default", Address: "10.0.0.9",
			Family: structs.NodeNetworkAF_IPv4, ReservedPorts: c.choose("", "8000-8001")})
	}
	if c.oneIn(3) {
		gpu := &structs.NodeDeviceResource{Vendor: "nvidia", Type: "gpu", Name: "t4"}
		for range c.between(1, 3) {
			gpu.Instances = append(gpu.Instances, &structs.NodeDevice{ID: uuid.Generate(), Healthy: !c.oneIn(4)})
		}
		resources.Devices = []*structs.NodeDeviceResource{gpu}
	}
	node.ReservedResources.Memory.MemoryMB = int64(c.between(0, 256))
	if c.oneIn(4) {
		node.NodeMaxAllocs = c.between(1, 4)
	}
	if c.oneIn(6) {
		node.Drivers["exec"] = &structs.DriverInfo{Detected: true, Healthy: c.oneIn(2), HealthDescription: "no cgroups"}
	}
	switch c.random.Intn(12) {
	case 0:
		node.Status = structs.NodeStatusDown
	case 1:
		node.SchedulingEligibility = structs.NodeSchedulingIneligible
	case 2:
		node.DrainStrategy = &structs.DrainStrategy{}
		node.SchedulingEligibility = structs.NodeSchedulingIneligible
	case 3:
		node.NodePool = "gpu"
	}
	resources.Compatibility()
	if err := node.ComputeClass(); err != nil {
		c.t.Fatal(err)
	}
	c.nodes = append(c.nodes, node)
	c.must(c.harness.State.UpsertNode(structs.MsgTypeTestSetup, c.harness.NextIndex(), node))
}

func (c *cluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) task(name string) *structs.Task {
	task := mock.BatchJob().TaskGroups[0].Tasks[0]
	task.Name, task.Driver = name, "exec"
	task.Resources = &structs.Resources{CPU: c.between(50, 3000), MemoryMB: c.between(32, 3000)}
	if c.oneIn(5) {
		task.Resources.CPU, task.Resources.Cores = 0, c.between(1, 3)
	}
	if c.oneIn(5) {
		task.Resources.MemoryMaxMB = task.Resources.MemoryMB * 2
	}
	return task
}

// newJob is a job of one or two tasks that asks for a bit of everything.
func (c *cluster) newJob(id string) *structs.Job {
	job := mock.BatchJob()
	job.ID, job.Name = id, id
	job.Datacenters = []string{c.choose("dc1", "dc*", "*", "dc2")}
	if c.oneIn(5) {
		job.NodePool = c.choose("gpu", "all")
	}
	group := job.TaskGroups[0]
	group.Count = c.between(1, 3)
	group.EphemeralDisk.SizeMB = c.between(10, 20000)
	group.Tasks = []*structs.Task{c.task("agent")}
	if c.oneIn(3) {
		side := c.task("side")
		side.Lifecycle = &structs.TaskLifecycleConfig{Hook: c.choose(structs.TaskLifecycleHookPrestart,
			structs.TaskLifecycleHookPoststart, structs.TaskLifecycleHookPoststop), Sidecar: c.oneIn(2)}
		group.Tasks = append(group.Tasks, side)
	}
	if c.oneIn(3) {
		network := &structs.NetworkResource{Mode: c.choose("host", "host", "host", "bridge")}
		if c.oneIn(2) {
			network.ReservedPorts = []structs.Port{{Label: "jmx", Value: c.between(8000, 8003), HostNetwork: "default"}}
		}
		for i := range c.random.Intn(4) {
			network.DynamicPorts = append(network.DynamicPorts,
				structs.Port{Label: fmt.Sprintf("p%d", i), HostNetwork: "default"})
		}
		group.Networks = []*structs.NetworkResource{network}
	}
	if c.oneIn(4) {
		group.Tasks[0].Resources.Devices = structs.ResourceDevices{{Name: c.choose("gpu", "nvidia/gpu", "amd/gpu"),
			Count: uint64(c.between(1, 2))}}
	}
	constraints := []*structs.Constraint{
		{LTarget: "${meta.rack}", RTarget: "r1", Operand: "="},
		{LTarget: "${meta.cores}", RTarget: "8", Operand: ">"},
		{LTarget: "${attr.kernel.name}", RTarget: "win.*", Operand: "regexp"},
		{LTarget: "${attr.nomad.version}", RTarget: ">= 1.10, < 1.12", Operand: "version"},
		{LTarget: "${node.class}", RTarget: "ci", Operand: "!="},
		{Operand: structs.ConstraintDistinctHosts, RTarget: "true"},
		{Operand: structs.ConstraintDistinctProperty, LTarget: "${meta.rack}"},
	}
	if c.oneIn(3) {
		job.Constraints = append(job.Constraints, constraints[c.random.Intn(len(constraints))])
	}
	if c.oneIn(3) {
		group.Constraints = append(group.Constraints, constraints[c.random.Intn(len(constraints))])
	}
	return job
}

// run lets the scheduler place a job; its evaluation comes back.
func (c *cluster) run(job *structs.Job) *structs.Evaluation {
	c.must(c.harness.State.UpsertJob(structs.MsgTypeTestSetup, c.harness.NextIndex(), nil, job))
	evaluation := &structs.Evaluation{Namespace: job.Namespace, ID: uuid.Generate(), Priority: job.Priority,
		Type: job.Type, TriggeredBy: structs.EvalTriggerJobRegister, JobID: job.ID, Status: structs.EvalStatusPending}
	c.must(c.harness.State.UpsertEvals(structs.MsgTypeTestSetup, c.harness.NextIndex(), []*structs.Evaluation{evaluation}))
	c.harness.Evals = nil
	c.must(c.harness.Process(scheduler.NewBatchScheduler, evaluation))
	if len(c.harness.Evals) != 1 {
		c.t.Fatalf("%d evaluations instead of one", len(c.harness.Evals))
	}
	return c.harness.Evals[0]
}

// age makes some of what runs stopping, and some of it terminal.
func (c *cluster) age() {
	iterator, err := c.harness.State.Allocs(nil, state.SortDefault)
	c.must(err)
	var changed []*structs.Allocation
	for raw := iterator.Next(); raw != nil; raw = iterator.Next() {
		allocation := raw.(*structs.Allocation).Copy()
		allocation.ClientStatus = structs.AllocClientStatusRunning
		switch c.random.Intn(8) {
		case 0:
			allocation.DesiredStatus = structs.AllocDesiredStatusStop
		case 1:
			allocation.ClientStatus = structs.AllocClientStatusComplete
		}
		changed = append(changed, allocation)
	}
	if len(changed) > 0 {
		c.must(c.harness.State.UpsertAllocs(structs.MsgTypeTestSetup, c.harness.NextIndex(), changed))
	}
}

func apiJSON(t *testing.T, value any) []byte {
	var text bytes.Buffer
	if err := codec.NewEncoder(&text, structs.JsonHandleWithExtensions).Encode(value); err != nil {
		t.Fatal(err)
	}
	return text.Bytes()
}

// serve is the part of Nomad's HTTP API that explain reads, in Nomad's own encoding.
func (c *cluster) serve(evaluation *structs.Evaluation) *httptest.Server {
	nodes := make([]*structs.NodeListStub, 0)
	for _, node := range c.nodes {
		nodes = append(nodes, node.Stub(&structs.NodeStubFields{Resources: true}))
	}
	allocations := make([]*structs.AllocListStub, 0)
	iterator, err := c.harness.State.Allocs(nil, state.SortDefault)
	c.must(err)
	for raw := iterator.Next(); raw != nil; raw = iterator.Next() {
		allocations = append(allocations, raw.(*structs.Allocation).Stub(&structs.AllocStubFields{Resources: true}))
	}
	queued := map[string]any{}
	for group, count := range evaluation.QueuedAllocations {
		queued[group] = map[string]int{"Queued": count}
	}
	answers := map[string][]byte{
		"/v1/nodes":                            apiJSON(c.t, nodes),
		"/v1/allocations":                      apiJSON(c.t, allocations),
		"/v1/job/" + c.job.ID:                  apiJSON(c.t, c.job),
		"/v1/job/" + c.job.ID + "/evaluations": apiJSON(c.t, []*structs.Evaluation{evaluation}),
		"/v1/job/" + c.job.ID + "/summary":     apiJSON(c.t, map[string]any{"Summary": queued}),
		"/v1/operator/scheduler/configuration": []byte(`{"SchedulerConfig":{}}`),
	}
	for _, node := range c.nodes {
		answers["/v1/node/"+node.ID] = apiJSON(c.t, node)
	}
	return httptest.NewServer(http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		body, found := answers[request.URL.Path]
		switch {
		case request.URL.Path == "/v1/acl/policies":
			http.Error(answer, "ACL support disabled", http.StatusBadRequest)
		case !found:
			http.Error(answer, "not here", http.StatusNotFound)
		default:
			_, _ = answer.Write(body)
		}
	}))
}

// counted is what explain's JSON and the scheduler's metric have in common.
type counted struct {
	Evaluated int            `json:"nodes_evaluated"`
	Filtered  int            `json:"nodes_filtered"`
	Exhausted int            `json:"nodes_exhausted"`
	Reasons   map[string]int `json:"constraint_filtered"`
	Dimension map[string]int `json:"dimension_exhausted"`
}

func (c *cluster) explain(address string) (int, counted, string) {
	command := exec.Command(binary(c.t), "explain", c.job.ID, "--json")
	command.Env = []string{"PATH=" + os.Getenv("PATH"), "NOMAD_ADDR=" + address}
	var output, complaint bytes.Buffer
	command.Stdout, command.Stderr = &output, &complaint
	code := 0
	var exit *exec.ExitError
	if err := command.Run(); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		c.t.Fatal(err)
	}
	if code == 1 {
		c.t.Fatalf("explain failed: %s", complaint.String())
	}
	var answer struct {
		Groups []struct {
			Now counted `json:"nomad_now"`
		}
	}
	if err := json.Unmarshal(output.Bytes(), &answer); err != nil {
		c.t.Fatalf("%v in %s", err, output.String())
	}
	return code, answer.Groups[0].Now, output.String()
}

// same compares two counts. Of the nodes of one computed class the scheduler tells the reason of the
// first one alone; the others have to have that of some node that explain counted.
func same(now counted, metric *structs.AllocMetric) error {
	if now.Evaluated != metric.NodesEvaluated || now.Filtered != metric.NodesFiltered ||
		now.Exhausted != metric.NodesExhausted {
		return fmt.Errorf("nodes evaluated, filtered, exhausted: %d %d %d", metric.NodesEvaluated,
			metric.NodesFiltered, metric.NodesExhausted)
	}
	if got, want := fmt.Sprint(now.Dimension), fmt.Sprint(metric.DimensionExhausted); got != want {
		return fmt.Errorf("dimensions %s", want)
	}
	hidden := metric.ConstraintFiltered["computed class ineligible"]
	for reason, count := range now.Reasons {
		hidden -= count - metric.ConstraintFiltered[reason]
	}
	for reason, count := range metric.ConstraintFiltered {
		if reason != "computed class ineligible" && now.Reasons[reason] < count {
			return fmt.Errorf("reason %s on %d nodes", reason, count)
		}
	}
	if hidden != 0 {
		return fmt.Errorf("reasons %v", metric.ConstraintFiltered)
	}
	return nil
}

func TestExplainCountsWhatTheSchedulerCounts(t *testing.T) {
	t.Setenv("NOMAD_TEST_LOG_LEVEL", "OFF")
	blocked, dimensions, reasons := 0, map[string]int{}, map[string]int{}
	for seed := int64(1); seed <= randomClusters; seed++ {
		t.Run(strconv.FormatInt(seed, 10), func(t *testing.T) {
			c := &cluster{t: t, random: rand.New(rand.NewSource(seed)), harness: tests.NewHarness(t)}
			c.must(c.harness.State.UpsertNodePools(structs.MsgTypeTestSetup, c.harness.NextIndex(),
				[]*structs.NodePool{{Name: "gpu"}}))
			// Nomad's default. Without any the scheduler tries a second time, with preemption, and reports that.
			c.must(c.harness.State.SchedulerSetConfig(c.harness.NextIndex(), &structs.SchedulerConfiguration{
				PreemptionConfig: structs.PreemptionConfig{SystemSchedulerEnabled: true}}))
			for i := range c.between(1, 8) {
				c.addNode(i)
			}
			for i := range c.random.Intn(5) {
				c.run(c.newJob(fmt.Sprintf("hold-%d", i)))
			}
			c.age()
			c.job = c.newJob("ask")
			evaluation := c.run(c.job)
			server := c.serve(evaluation)
			defer server.Close()
			code, now, text := c.explain(server.URL)
			metric := evaluation.FailedTGAllocs[c.job.TaskGroups[0].Name]
			if (metric != nil) != (code == 2) {
				t.Fatalf("exit code %d, and the scheduler failed to place: %v", code, metric != nil)
			}
			if metric == nil {
				return
			}
			if err := same(now, metric); err != nil {
				t.Errorf("the scheduler counted %v\n%s", err, text)
			}
			blocked++
			for dimension := range metric.DimensionExhausted {
				dimensions[strings.TrimRight(dimension, "0123456789")]++
			}
			for reason := range metric.ConstraintFiltered {
				reasons[reason]++
			}
		})
	}
	// Without variety the comparison would say nothing.
	t.Logf("%d of %d wait; dimensions %v; reasons %v", blocked, randomClusters, dimensions, reasons)
	if blocked < randomClusters/4 || len(dimensions) < 6 || len(reasons) < 6 {
		t.Errorf("only %d wait, for %d dimensions and %d reasons", blocked, len(dimensions), len(reasons))
	}
}
