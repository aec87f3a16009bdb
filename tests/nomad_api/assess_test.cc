// One node against one group: the cases that no recording has.
#include "driver/nomad/assess.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "driver/nomad/explain.h"
#include "driver/nomad/json.h"

namespace jenkins_agent::nomad {
namespace {

using ::testing::HasSubstr;

class Scene {
 public:
  Scene() {
    Node node;
    node.id = "n1";
    node.name = "node-1";
    node.datacenter = "dc1";
    node.pool = "default";
    node.status = "ready";
    node.cpu_mhz = 4000;
    node.cores = {{0, 1000, false}, {1, 1000, false}, {2, 1000, false}, {3, 1000, true}};
    node.memory_mb = 8192;
    node.disk_mb = 50000;
    node.network_modes = {"host"};
    node.host_networks = {{"eth0", "host", {{"10.0.0.1", "default", "22,8000-8010"}}}};
    node.drivers["jenkins-agent"] = {true, true, "Healthy"};
    cluster.nodes = {node};
    Task task;
    task.name = "agent";
    task.driver = "jenkins-agent";
    task.amounts = {.cpu_mhz = 500, .memory_mb = 1000, .memory_max_mb = 0};
    Group group;
    group.name = "g";
    group.tasks = {task};
    job.id = "j";
    job.name_space = "default";
    job.type = "batch";
    job.node_pool = "default";
    job.datacenters = {"*"};
    job.groups = {group};
  }

  Node& node() { return cluster.nodes[0]; }
  Group& group() { return job.groups[0]; }
  Task& task() { return job.groups[0].tasks[0]; }
  Allocation& Add(Amounts amounts, std::vector<int> cores = {}) {
    Allocation allocation;
    allocation.id = "a1";
    allocation.node_id = "n1";
    allocation.job = "other";
    allocation.name_space = "default";
    allocation.client_status = "running";
    allocation.desired_status = "run";
    allocation.holding.amounts = amounts;
    allocation.holding.cores = std::move(cores);
    cluster.allocations.push_back(allocation);
    return cluster.allocations.back();
  }
  NodeReport Assess() {
    const Ledger ledger(cluster);
    return AssessNode(job, group(), node(), ledger);
  }
  GroupExplanation ExplainOne() {
    const Ledger ledger(cluster);
    Question question{.job = job, .evaluation = {}, .queued = {{"g", 1}}};
    return Explain(question, ledger).groups.at(0);
  }

  Cluster cluster;
  Job job;
};

const Figure* Find(const NodeReport& report, Resource resource) {
  for (const Figure& figure : report.figures) {
    if (figure.resource == resource) return &figure;
  }
  return nullptr;
}

TEST(Assess, FiguresAreTotalLessReservedLessAllocated) {
  Scene scene;
  scene.node().reserved_memory_mb = 192;
  scene.Add({.cpu_mhz = 1000, .memory_mb = 7500, .memory_max_mb = 7500});
  const NodeReport report = scene.Assess();
  const Figure* memory = Find(report, Resource::kMemory);
  EXPECT_EQ(memory->total, 8192);
  EXPECT_EQ(memory->reserved, 192);
  EXPECT_EQ(memory->allocated, 7500);
  EXPECT_EQ(memory->free, 500);
  EXPECT_EQ(memory->short_by, 500);
  EXPECT_EQ(report.nomad_reason, "memory");
  EXPECT_TRUE(report.room_when_empty);
}

TEST(Assess, EverythingThatIsShortIsToldWhereNomadTellsTheFirst) {
  Scene scene;
  scene.Add({.cpu_mhz = 3900, .memory_mb = 8000, .memory_max_mb = 8000}).holding.disk_mb = 49900;
  const NodeReport report = scene.Assess();
  EXPECT_EQ(report.nomad_reason, "cpu");
  EXPECT_EQ(Find(report, Resource::kCpu)->short_by, 400);
  EXPECT_EQ(Find(report, Resource::kMemory)->short_by, 808);
  EXPECT_EQ(Find(report, Resource::kDisk)->short_by, 200);
}

TEST(Assess, ReservedCoresCountWithTheirMhz) {
  Scene scene;
  scene.task().cores = 2;
  scene.Add({.cpu_mhz = 2500, .memory_mb = 100, .memory_max_mb = 100}, {0});
  const NodeReport report = scene.Assess();
  EXPECT_EQ(Find(report, Resource::kCores)->free, 2);  // of 4 one is the client's, one taken
  EXPECT_EQ(Find(report, Resource::kCpu)->asked, 2000);
  EXPECT_EQ(report.nomad_reason, "cpu");
  scene.task().cores = 3;
  EXPECT_EQ(scene.Assess().nomad_reason, "cores");
}

TEST(Assess, OfLifecyclesTheLargestCounts) {
  Scene scene;
  Task before = scene.task();
  before.name = "before";
  before.lifecycle = Lifecycle::kPrestart;
  before.amounts.memory_mb = 3000;
  Task sidecar = scene.task();
  sidecar.name = "sidecar";
  sidecar.lifecycle = Lifecycle::kPrestartSidecar;
  sidecar.amounts.memory_mb = 100;
  scene.group().tasks.push_back(before);
  scene.group().tasks.push_back(sidecar);
  EXPECT_EQ(AskOf(scene.group()).amounts.memory_mb, 3100);
  EXPECT_EQ(AskOf(scene.group()).amounts.cpu_mhz, 1000);
}

TEST(Assess, DynamicPortsOfTheRangeRunOut) {
  Scene scene;
  scene.node().min_dynamic_port = 8008;
  scene.node().max_dynamic_port = 8012;
  scene.group().has_network = true;
  scene.group().dynamic_ports = {{"a", "", 0}, {"b", "", 0}};
  scene.Add({}).holding.ports = {{"x", "10.0.0.1", 8011}};
  const NodeReport report = scene.Assess();
  const Figure* ports = Find(report, Resource::kDynamicPorts);
  EXPECT_EQ(ports->total, 5);
  EXPECT_EQ(ports->reserved, 3);
  EXPECT_EQ(ports->allocated, 1);
  EXPECT_EQ(ports->short_by, 1);
  EXPECT_EQ(report.nomad_reason, "network: dynamic port selection failed");
}

TEST(Assess, AStaticPortThatTheNodeReservesNeverFits) {
  Scene scene;
  scene.group().has_network = true;
  scene.group().static_ports = {{"ssh", "", 22}};
  const NodeReport report = scene.Assess();
  EXPECT_EQ(report.nomad_reason, "network: reserved port collision ssh=22");
  EXPECT_FALSE(report.room_when_empty);
}

TEST(Assess, DevicesInUseAreToldFromDevicesThatAreNotThere) {
  Scene scene;
  scene.node().devices = {{"nvidia", "gpu", "t4", {"0", "1"}}};
  scene.task().devices = {{"nvidia/gpu", 2}};
  scene.Add({}).holding.devices = {{"nvidia", "gpu", "t4", {"1"}}};
  EXPECT_EQ(scene.Assess().nomad_reason, "devices: no devices match request");
  scene.task().devices = {{"gpu", 3}};
  const NodeReport report = scene.Assess();
  EXPECT_EQ(report.standing, Standing::kFiltered);
  EXPECT_EQ(report.nomad_reason, "missing devices");
}

TEST(Assess, AnUnhealthyDriverIsToldInItsOwnWords) {
  Scene scene;
  scene.node().drivers["jenkins-agent"] = {true, false, "no cgroup controllers"};
  const NodeReport report = scene.Assess();
  EXPECT_EQ(report.standing, Standing::kFiltered);
  EXPECT_EQ(report.reasons.at(0).text, "driver jenkins-agent is unhealthy: no cgroup controllers");
  EXPECT_EQ(report.nomad_reason, "missing drivers");
}

TEST(Explain, ADriverThatBecomesHealthyNeedsAnEvaluationBeforeItsJobIsLookedAt) {
  Scene scene;
  scene.job.name_space = "ci";
  scene.node().drivers["jenkins-agent"] = {true, false, "no cgroup controllers"};
  EXPECT_THAT(scene.ExplainOne().remedies.at(0).text,
              HasSubstr("healthy, then nomad job eval -namespace=ci j, "));
  // One that is missing comes with an attribute, which Nomad looks at.
  scene.node().drivers.clear();
  EXPECT_THAT(scene.ExplainOne().remedies.at(0).text,
              ::testing::StartsWith("make the driver jenkins-agent healthy: "));
}

TEST(Explain, WhatFitsAndWaitsCanBeEvaluatedAgain) {
  Scene scene;
  const GroupExplanation group = scene.ExplainOne();
  EXPECT_EQ(group.verdict, Verdict::kFitsNow);
  ASSERT_EQ(group.remedies.size(), 1u);
  EXPECT_THAT(group.remedies[0].text, HasSubstr("nomad job eval j: "));
  // Nomad's plan of the job as it is tells whether that helps.
  ASSERT_TRUE(group.remedies[0].change.has_value());
  EXPECT_TRUE(group.remedies[0].change->tasks.empty());
}

TEST(Assess, TheNodesLimitOfAllocationsIsLookedAtFirst) {
  Scene scene;
  scene.node().max_allocations = 1;
  scene.Add({.cpu_mhz = 4000, .memory_mb = 8192, .memory_max_mb = 8192});
  EXPECT_EQ(scene.Assess().nomad_reason, "max allocation exceeded");
}

TEST(Assess, EveryReasonOfALeftOutNodeIsTold) {
  Scene scene;
  scene.node().status = "down";
  scene.node().drain = true;
  scene.node().pool = "gpu";
  scene.node().datacenter = "dc7";
  scene.job.datacenters = {"dc1"};
  const NodeReport report = scene.Assess();
  EXPECT_EQ(report.standing, Standing::kLeftOut);
  ASSERT_EQ(report.reasons.size(), 4u);
  EXPECT_TRUE(report.nomad_reason.empty());
}

TEST(Remedies, AnAllocationThatIsToldToStopIsWorthWaitingFor) {
  Scene scene;
  scene.Add({.cpu_mhz = 100, .memory_mb = 8000, .memory_max_mb = 8000}).desired_status = "stop";
  const GroupExplanation group = scene.ExplainOne();
  EXPECT_EQ(group.verdict, Verdict::kNoRoom);
  ASSERT_FALSE(group.remedies.empty());
  EXPECT_THAT(group.remedies[0].text, HasSubstr("told to stop"));
  EXPECT_TRUE(group.holders.at(0).stopping);
}

TEST(Remedies, ADrainedNodeWithRoomIsNamedWithTheCommand) {
  Scene scene;
  scene.node().drain = true;
  const GroupExplanation group = scene.ExplainOne();
  EXPECT_EQ(group.verdict, Verdict::kNoCandidate);
  EXPECT_THAT(group.remedies.at(0).text, HasSubstr("nomad node drain -disable n1"));
}

TEST(Remedies, WithSeveralTasksTheLargestIsAskedForLess) {
  Scene scene;
  Task big = scene.task();
  big.name = "big";
  big.amounts.memory_mb = 9000;
  scene.group().tasks.push_back(big);
  const GroupExplanation group = scene.ExplainOne();
  EXPECT_EQ(group.verdict, Verdict::kNeverFits);
  ASSERT_TRUE(group.remedies.at(0).change.has_value());
  EXPECT_EQ(group.remedies[0].change->tasks.at("big").memory_mb, 7192);
}

}  // namespace
}  // namespace jenkins_agent::nomad
