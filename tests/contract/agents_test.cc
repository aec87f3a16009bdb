// `agents`, the operator's command, beside a plugin and without one.
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
#include "driver/base/packet.h"
#include "driver/base/process.h"
#include "driver/base/subprocess.h"
#include "proto/supervisor.pb.h"
#include "tests/contract/task_test.h"
#include "tests/support/wait_for.h"

namespace jenkins_agent {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;
using Json = nlohmann::json;

constexpr char kSleep[] = "sleep 601 & exec sleep 600";

class Agents : public TaskTest {
 protected:
  // As an operator types it, by the plugin's own file.
  RunResult Command(const std::vector<std::string>& arguments) const {
    std::vector<std::string> argv = {DRIVER_FILE, "agents", "--state-dir", host_.StateDir()};
    argv.insert(argv.end(), arguments.begin(), arguments.end());
    absl::StatusOr<RunResult> result = jenkins_agent::Run(argv, {});
    EXPECT_OK(result);
    return result.value_or(RunResult());
  }
  Json List() const { return Json::parse(Command({"--json"}).output); }
  // The task of this allocation.
  Json Task(const std::string& alloc_id) const {
    const Json list = List();
    for (const Json& task : list["agents"]) {
      if (task["alloc_id"] == alloc_id) return task;
    }
    return Json();
  }

  // One whose controller does not exist: it waits for its agent.jar.
  nomad::TaskConfig AgentConfig() const {
    nomad::TaskConfig config = host_.Config(kOther, "");
    config.clear_msgpack_driver_config();
    auto& env = *config.mutable_env();
    env["JENKINS_URL"] = "http://127.0.0.1:1/";
    env["JENKINS_AGENT_NAME"] = "linux-1";
    env["JENKINS_SECRET"] = "s3cret";
    return config;
  }
  void StartBoth() {
    nomad::TaskHandle agent;
    agent_ = AgentConfig();
    ASSERT_THAT(host_.Start(agent_, &agent), Succeeded());
    program_ = host_.Config(kId, kSleep);
    Start(program_);
    ASSERT_TRUE(WaitFor([&] { return Task(agent_.alloc_id())["last_event"] != ""; }));
    ASSERT_TRUE(WaitFor([&] { return Task(program_.alloc_id())["build_processes"] == 1; }));
  }
  pb::TaskRecord State() const {
    pb::TaskRecord record;
    EXPECT_TRUE(record.ParseFromString(handle_.driver_state()));
    return record;
  }
  void KillSupervisor() {
    const pid_t supervisor = State().supervisor_pid();
    ASSERT_EQ(::kill(supervisor, SIGKILL), 0);
    ASSERT_TRUE(WaitFor([&] { return !ProcessStartTime(supervisor).ok(); }));
  }

  nomad::TaskConfig agent_;
  nomad::TaskConfig program_;  // with id kId
};

TEST_F(Agents, AreShownWithThePluginAndWithoutIt) {
  StartBoth();
  const std::string pid = Pid();
  for (const bool plugin : {true, false}) {
    const Json list = List();
    ASSERT_EQ(list["agents"].size(), 2u) << list.dump(2);
    if (plugin) {
      EXPECT_EQ(list["plugin_pid"], host_.plugin().pid());
    } else {
      EXPECT_TRUE(list["plugin_pid"].is_null());
    }

    const Json program = Task(program_.alloc_id());
    EXPECT_EQ(program["name"], "agent");  // the task's
    EXPECT_EQ(program["kind"], "program");
    EXPECT_EQ(program["phase"], "running");
    EXPECT_EQ(absl::StrCat(program["jvm_pid"].get<int>()), pid);
    EXPECT_EQ(program["threads"], 2);
    EXPECT_EQ(program["threads_limit"], 2048);
    EXPECT_GT(program["memory_bytes"], 0);
    EXPECT_EQ(program["build_processes"], 1);
    EXPECT_EQ(program["restarts"], 0);

    const Json agent = Task(agent_.alloc_id());
    EXPECT_EQ(agent["name"], "linux-1");
    EXPECT_EQ(agent["kind"], "agent");
    EXPECT_EQ(agent["phase"], "waiting for agent.jar");
    EXPECT_EQ(agent["controllers"], Json({"http://127.0.0.1:1/"}));
    EXPECT_TRUE(agent["jvm_pid"].is_null());
    EXPECT_THAT(agent["last_event"].get<std::string>(), HasSubstr("onnection refused"));

    const RunResult table = Command({});
    EXPECT_EQ(table.exit.exit_code, 0);
    EXPECT_THAT(table.output,
                AllOf(StartsWith("NAME"), HasSubstr("\nagent  "), HasSubstr("\nlinux-1  "),
                      HasSubstr("  waiting for agent.jar  ")));
    EXPECT_THAT(table.output, Not(HasSubstr("s3cret")));
    EXPECT_THAT(list.dump(), Not(HasSubstr("s3cret")));
    EXPECT_THAT(table.error_tail,
                plugin ? testing::Matcher<std::string>(IsEmpty()) : HasSubstr("No plugin runs"));
    if (plugin) {
      ASSERT_OK(host_.Crash());
    }
  }
  ASSERT_OK(host_.Launch());
}

TEST_F(Agents, WhoDoesNotAnswerIsShownAsSuchAndHoldsUpNobody) {
  StartBoth();
  const pb::TaskRecord stopped = State();
  ASSERT_EQ(::kill(stopped.supervisor_pid(), SIGSTOP), 0);
  ASSERT_OK_AND_ASSIGN(const Fd dir, OpenFile(stopped.task_dir(), O_RDONLY | O_DIRECTORY));
  std::vector<Fd> waiting;
  for (const bool queue_full : {false, true}) {
    const RunResult result = Command({"--json"});
    EXPECT_EQ(result.exit.exit_code, 2) << queue_full;
    const Json list = Json::parse(result.output);
    ASSERT_EQ(list["agents"].size(), 2u);
    EXPECT_EQ(list["agents"][0]["state"], "no answer");
    EXPECT_EQ(list["agents"][0]["threads"], 2);  // the kernel still tells
    EXPECT_EQ(list["agents"][1]["state"], "answered");
    for (absl::Status status; status.ok() && !queue_full && waiting.size() < 1000;) {
      auto next = ConnectPacket(dir.get(), "control.sock", std::chrono::milliseconds(10));
      status = next.status();
      if (next.ok()) waiting.push_back(*std::move(next));
    }
  }
  const RunResult dump = Command({"dump", "agent"});
  EXPECT_EQ(dump.exit.exit_code, 1);
  EXPECT_THAT(dump.error_tail, HasSubstr("agent (allocation"));
  waiting.clear();
  ASSERT_EQ(::kill(stopped.supervisor_pid(), SIGCONT), 0);
  EXPECT_TRUE(WaitFor([&] { return Command({}).exit.exit_code == 0; }));
}

TEST_F(Agents, WhatHasEndedAndWhatWasLostIsShown) {
  Start("exit 5");
  Wait();
  ASSERT_TRUE(WaitFor([&] { return List()["agents"][0]["state"] == "exited"; }));
  EXPECT_EQ(List()["agents"][0]["last_event"], "exit code 5");
  EXPECT_EQ(Command({}).exit.exit_code, 0);
  ASSERT_THAT(host_.Destroy(kId), Succeeded());

  Start(kSleep);
  ASSERT_OK(host_.Crash());
  KillSupervisor();
  const RunResult lost = Command({});
  EXPECT_EQ(lost.exit.exit_code, 2);
  EXPECT_THAT(lost.output, AllOf(HasSubstr("  lost  "), HasSubstr("supervisor was killed")));
  ASSERT_OK(host_.Launch());
}

TEST_F(Agents, ARecordOfANewerDriverOrADamagedOneHidesNobodyWhoAnswers) {
  Start(kSleep);
  pb::TaskRecord newer = State();
  newer.set_version(99);
  const std::string handle = State().task_dir() + "/handle.pb";
  const std::string good = *ReadFile(handle);
  ASSERT_OK(WriteFileAtomic(handle, newer.SerializeAsString()));
  EXPECT_EQ(List()["agents"][0]["phase"], "running");
  ASSERT_OK(WriteFileAtomic(handle, "garbage"));
  const RunResult damaged = Command({"--json"});
  EXPECT_EQ(damaged.exit.exit_code, 0);
  EXPECT_EQ(Json::parse(damaged.output)["agents"][0]["phase"], "running");
  ASSERT_OK(WriteFileAtomic(handle, good));
}

TEST_F(Agents, TheStateDirectoryIsNamedWhenItIsTheWrongOne) {
  const RunResult none = Command({});
  EXPECT_EQ(none.exit.exit_code, 0);
  EXPECT_EQ(none.output,
            absl::StrCat("No agents on this node (state directory ", host_.StateDir(), ").\n"));
  ASSERT_OK_AND_ASSIGN(const RunResult missing,
                       jenkins_agent::Run({DRIVER_FILE, "agents", "--state-dir", "/no/such"}, {}));
  EXPECT_EQ(missing.exit.exit_code, 1);
  EXPECT_THAT(missing.error_tail,
              AllOf(StartsWith("agents: state directory /no/such does not exist"),
                    HasSubstr("--state-dir")));
  ASSERT_OK_AND_ASSIGN(
      const RunResult nobody,
      jenkins_agent::Run({"/usr/bin/setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
                          DRIVER_FILE, "agents", "--state-dir", host_.StateDir()},
                         {}));
  EXPECT_EQ(nobody.exit.exit_code, 1);
  EXPECT_THAT(nobody.error_tail, HasSubstr("permission denied; run this as root"));
}

TEST_F(Agents, ADumpThatCannotBeSaysWhy) {
  StartBoth();
  const RunResult waits = Command({"dump", "linux-1"});
  EXPECT_EQ(waits.exit.exit_code, 1);
  EXPECT_THAT(waits.error_tail, AllOf(StartsWith("agents: linux-1 (allocation "),
                                      HasSubstr("no JVM of the agent runs")));
  const RunResult program = Command({"dump", "agent"});
  EXPECT_EQ(program.exit.exit_code, 1);
  EXPECT_THAT(program.error_tail, HasSubstr("is no agent of the driver's"));
  const RunResult unknown = Command({"dump", "linux-2"});
  EXPECT_EQ(unknown.exit.exit_code, 1);
  EXPECT_THAT(unknown.error_tail, AllOf(HasSubstr("no agent 'linux-2'"), HasSubstr("linux-1")));
  EXPECT_EQ(Task(program_.alloc_id())["phase"], "running");
}

}  // namespace
}  // namespace jenkins_agent
