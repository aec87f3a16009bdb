#include "driver/tools/agents_view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "driver/base/file.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kSecond = 1'000'000'000;
constexpr int64_t kNow = 1'700'000'000 * kSecond;

pb::TaskRecord Record(const std::string& alloc_id, const std::string& task) {
  pb::TaskRecord record;
  record.set_version(1);
  record.set_alloc_id(alloc_id);
  record.set_task_name(task);
  record.set_supervisor_pid(40);
  record.set_started_at_ns(kNow - 9000 * kSecond);
  return record;
}

TaskFindings Connected() {
  TaskFindings findings;
  findings.task_dir = "/state/tasks/1";
  findings.record = Record("11111111-2222", "agent");
  findings.supervisor_alive = true;
  pb::TaskStatus status;
  status.set_state(pb::RUNNING);
  status.set_phase(pb::PHASE_CONNECTED);
  status.set_agent_name("linux-1");
  status.add_agent_urls("https://jenkins:hunter2@jenkins.example/");
  status.add_agent_urls("https://other.example/");
  status.set_supervisor_pid(40);
  status.set_init_pid(41);
  status.set_payload_pid(42);
  status.set_launches(3);
  status.set_restarts(2);
  status.mutable_timings()->set_sandbox_ms(4.5);
  status.mutable_timings()->set_launched_ms(44);
  status.set_started_at_ns(kNow - 9000 * kSecond);
  status.set_phase_since_ns(kNow - 7500 * kSecond);
  status.mutable_last_event()->set_time_ns(kNow - 65 * kSecond);
  status.mutable_last_event()->set_message("out of memory: the kernel killed cc1plus");
  findings.status = status;
  cgroups::Usage& usage = findings.usage.emplace();
  usage.memory_usage_bytes = 400 << 20;
  usage.memory_idle_cache_bytes = 100 << 20;
  usage.memory_peak_bytes = 500 << 20;
  usage.pids = 37;
  usage.cpu_throttled_ns = 12'000'000;
  findings.stalls = cgroups::Stalls{.cpu_ns = 3'400'000'000, .memory_ns = 56'000'000, .io_ns = {}};
  findings.ceiling = cgroups::Ceiling{.memory_bytes = 1 << 30, .pids = 2048};
  findings.members = std::vector<pid_t>{41, 42, 43, 44};
  return findings;
}

TaskFindings Program() {
  TaskFindings findings;
  findings.task_dir = "/state/tasks/2";
  findings.record = Record("22222222-3333", "sh");
  findings.supervisor_alive = true;
  pb::TaskStatus status;
  status.set_state(pb::RUNNING);
  status.set_started_at_ns(kNow - 5 * kSecond);
  status.set_payload_pid(52);
  findings.status = status;
  findings.usage.emplace().memory_usage_bytes = 1 << 20;
  findings.usage->pids = 1;
  findings.ceiling = cgroups::Ceiling();
  findings.members = std::vector<pid_t>{52};
  return findings;
}

TaskFindings Silent() {
  TaskFindings findings;
  findings.task_dir = "/state/tasks/3";
  findings.record = Record("33333333-4444", "agent");
  findings.supervisor_alive = true;
  findings.status = absl::DeadlineExceededError("no answer");
  findings.usage.emplace().memory_usage_bytes = 1 << 20;
  findings.usage->pids = 12;
  return findings;
}

TaskFindings Ended() {
  TaskFindings findings;
  findings.task_dir = "/state/tasks/4";
  findings.record = Record("44444444-5555", "agent");
  findings.status = absl::UnavailableError("connection refused");
  findings.exit.emplace().set_exit_code(3);
  findings.exit->set_message("the agent's JVM exited\nwith code 3");
  findings.exit->set_finished_at_ns(kNow - 60 * kSecond);
  findings.exit->set_restarts(5);
  return findings;
}

AgentList List(const std::vector<TaskFindings>& all) {
  AgentList list;
  list.state_dir = "/state";
  list.plugin_pid = 7;
  for (const TaskFindings& findings : all) list.rows.push_back(MakeRow(findings));
  SortByName(list.rows);
  return list;
}

TEST(AgentsView, ATableOfAllThatCanBe) {
  EXPECT_EQ(
      AgentsTable(List({Program(), Connected(), Silent(), Ended()}), kNow, 0),
      "NAME     ALLOC     CONTROLLER                   PHASE      SINCE  RESTARTS  THREADS  "
      "MEMORY         BUILD PROCESSES  LAST EVENT\n"
      "agent    33333333  -                            no answer  -      -         12       "
      "1.0MiB         -                its supervisor runs and does not answer: no answer\n"
      "agent    44444444  -                            exited     1m00s  5         -        "
      "-              -                exit code 3: the agent's JVM exited?with code 3 (1m00s "
      "ago)\n"
      "linux-1  11111111  https://jenkins.example/ +1  connected  2h05m  2         37/2048  "
      "300MiB/1.0GiB  2                out of memory: the kernel killed cc1plus (1m05s ago)\n"
      "sh       22222222  -                            running    5s     0         1        "
      "1.0MiB         0                -\n");
}

TEST(AgentsView, JsonHasRawNumbersAndNullForWhatIsNotKnown) {
  EXPECT_EQ(AgentsJson(List({Connected()})),
            R"({
  "state_dir": "/state",
  "plugin_pid": 7,
  "agents": [
    {
      "name": "linux-1",
      "alloc_id": "11111111-2222",
      "task": "agent",
      "task_dir": "/state/tasks/1",
      "kind": "agent",
      "controllers": [
        "https://jenkins.example/",
        "https://other.example/"
      ],
      "state": "answered",
      "phase": "connected",
      "detail": "",
      "since_unix_ms": 1699992500000,
      "started_unix_ms": 1699991000000,
      "start_ms": {
        "sandbox": 4.5,
        "agent_jar": null,
        "launched": 44.0,
        "connected": null
      },
      "restarts": 2,
      "launches": 3,
      "threads": 37,
      "threads_limit": 2048,
      "memory_bytes": 314572800,
      "memory_peak_bytes": 524288000,
      "memory_limit_bytes": 1073741824,
      "cpu_throttled_ms": 12,
      "cpu_stalled_ms": 3400,
      "memory_stalled_ms": 56,
      "io_stalled_ms": null,
      "build_processes": 2,
      "supervisor_pid": 40,
      "jvm_pid": 42,
      "last_event": "out of memory: the kernel killed cc1plus",
      "last_event_unix_ms": 1699999935000
    }
  ]
}
)");
  TaskFindings nothing;
  nothing.task_dir = "/state/tasks/5";
  nothing.status = absl::UnavailableError("no such file");
  AgentList list = List({nothing});
  list.plugin_pid.reset();
  EXPECT_THAT(AgentsJson(list),
              AllOf(HasSubstr("\"plugin_pid\": null"), HasSubstr("\"state\": \"unreadable\""),
                    HasSubstr("\"memory_bytes\": null"), HasSubstr("\"since_unix_ms\": null"),
                    HasSubstr("\"jvm_pid\": null")));
  EXPECT_THAT(AgentsJson(List({})), HasSubstr("\"agents\": []"));
}

TEST(AgentsView, APasswordInAUrlIsNeverShown) {
  const AgentList list = List({Connected()});
  EXPECT_THAT(AgentsTable(list, kNow, 0), Not(HasSubstr("hunter2")));
  EXPECT_THAT(AgentsJson(list), Not(HasSubstr("hunter2")));
}

// tests/data/first_release: what a supervisor said before there were fields for this command.
TEST(AgentsView, ASupervisorOfTheFirstReleaseIsShownWithWhatItTells) {
  ASSERT_OK_AND_ASSIGN(const std::string bytes,
                       ReadFile(DATA_DIR "/first_release/hello_reply.bin"));
  pb::ControlReply reply;
  ASSERT_TRUE(reply.ParseFromString(bytes));
  TaskFindings findings = Connected();
  findings.status = reply.status();
  findings.members = std::vector<pid_t>{4002, 4003, 4004};
  const AgentRow row = MakeRow(findings);
  EXPECT_EQ(row.name, "agent");
  EXPECT_TRUE(row.agent);
  EXPECT_EQ(row.phase, "connected");
  EXPECT_EQ(row.since_ns, 1'700'000'000'000'000'000);
  EXPECT_EQ(row.build_processes, 1u);
}

TEST(AgentsView, TheProcessThatWaitsForItsProgramIsNoBuild) {
  TaskFindings findings = Connected();
  findings.status->set_state(pb::WAITING_FOR_JAR);
  findings.status->set_launches(0);
  findings.status->set_payload_pid(0);
  findings.members = std::vector<pid_t>{4002};
  EXPECT_EQ(MakeRow(findings).build_processes, 0u);
}

TEST(AgentsView, EachStateOfARunningTaskHasItsWord) {
  const std::pair<pb::RunState, const char*> cases[] = {
      {pb::RUN_STATE_UNKNOWN, "setting up"},
      {pb::WAITING_FOR_JAR, "waiting for agent.jar"},
      {pb::RUNNING, "connected"},
      {pb::BACKING_OFF, "waiting to restart"},
      {pb::STOPPING, "stopping"},
      {pb::EXITED, "exited"}};
  for (const auto& [state, word] : cases) {
    TaskFindings findings = Connected();
    findings.status->set_state(state);
    EXPECT_EQ(MakeRow(findings).phase, word);
  }
}

TEST(AgentsView, WhoIsGoneIsToldFromWhoIsSilent) {
  TaskFindings findings = Silent();
  EXPECT_EQ(MakeRow(findings).state, AgentRow::State::kSilent);
  findings.status = absl::UnavailableError("connection refused");
  EXPECT_EQ(MakeRow(findings).state, AgentRow::State::kSilent);
  findings.supervisor_alive = false;
  EXPECT_EQ(MakeRow(findings).state, AgentRow::State::kLost);
  EXPECT_THAT(MakeRow(findings).detail, HasSubstr("was killed"));
  findings.earlier_boot = true;
  EXPECT_THAT(MakeRow(findings).detail, HasSubstr("rebooted"));
  EXPECT_TRUE(AnyTrouble(List({findings})));
  findings.exit.emplace();
  EXPECT_EQ(MakeRow(findings).state, AgentRow::State::kExited);
  EXPECT_FALSE(AnyTrouble(List({findings, Connected()})));
  EXPECT_TRUE(AnyTrouble(List({Silent(), Connected()})));
}

TEST(FindAgent, ByNameOrByTheBeginningOfItsAllocation) {
  TaskFindings twin = Connected();
  twin.record->set_alloc_id("99999999-0000");
  const AgentList list = List({Connected(), twin, Program(), Ended()});
  EXPECT_EQ(FindAgent(list, "sh")->alloc_id, "22222222-3333");
  EXPECT_EQ(FindAgent(list, "9999")->alloc_id, "99999999-0000");
  EXPECT_THAT(FindAgent(list, "linux-1").status(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("allocation 11111111"), HasSubstr("allocation 99999999"))));
  EXPECT_THAT(FindAgent(list, "999").status(),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("there are: linux-1 (allocation")));
  EXPECT_THAT(FindAgent(list, "4444").status(),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("sh (allocation 22222222)")));
  EXPECT_THAT(FindAgent(List({Ended()}), "x").status(),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("none runs on this node")));
}

}  // namespace
}  // namespace jenkins_agent
