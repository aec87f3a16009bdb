// An inbound agent, played by a script in the place of `java`: jar, phases, relaunch, refusal.
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <set>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "cgroups/hierarchy.h"
#include "driver/base/file.h"
#include "driver/base/process.h"
#include "tests/supervisor/cgroup_moves.h"
#include "tests/supervisor/harness.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using testing::HasSubstr;

// What an agent says and does while its controller is down.
constexpr char kControllerIsDown[] =
    "echo 'INFO: Locating server among [http://controller.example/]' >&2;"
    "echo 'SEVERE: Failed to connect to http://controller.example/tcpSlaveAgentListener/: "
    "Connection refused' >&2; exit 255";
constexpr char kConnectsAndStays[] = "echo 'INFO: Connected' >&2; exec sleep 1000";

class Agent : public SupervisorTest {
 protected:
  // `script` is what `java @file` does; it runs in /local.
  pb::LaunchSpec AgentSpec(const std::string& script) {
    const std::string home = directory() + "/jdk";
    EXPECT_OK(MakeDirs(home + "/bin"));
    EXPECT_OK(WriteFileAtomic(home + "/bin/java", "#!/bin/sh\n" + script + "\n", 0755));
    EXPECT_EQ(::chmod((home + "/bin/java").c_str(), 0755), 0);
    pb::LaunchSpec spec = Spec({});
    spec.mutable_program()->clear_argv();
    pb::AgentSpec& agent = *spec.mutable_agent();
    agent.add_urls("http://controller.example/");
    agent.set_name("linux-1");
    agent.set_secret("deadbeef");
    agent.set_root_dir("/local/agent");
    pb::JavaHome& missing = *agent.add_java_homes();
    missing.set_path("/opt/no-jdk");
    missing.set_feature(21);
    pb::JavaHome& java = *agent.add_java_homes();
    java.set_path(home);
    java.set_feature(17);
    return spec;
  }

  // Command lines of the task's processes that contain `part`.
  std::set<std::string> Commands(const std::string& part) {
    std::set<std::string> found;
    const pb::TaskStatus status = watcher().Status();
    for (const std::string& dir : status.cgroup_dirs()) {
      if (!absl::StrContains(dir, "/freezer/") && !absl::StrContains(dir, ".slice/")) continue;
      const auto members = ReadFile(dir + "/cgroup.procs");
      EXPECT_OK(members);
      for (absl::string_view pid : absl::StrSplit(*members, '\n', absl::SkipEmpty())) {
        auto command = ReadFile(absl::StrCat("/proc/", pid, "/cmdline"));
        if (!command.ok() || command->empty()) continue;
        command->pop_back();
        for (char& byte : *command) byte = byte == '\0' ? ' ' : byte;
        if (absl::StrContains(*command, part)) found.insert(*command);
      }
    }
    return found;
  }

  static pb::JarInfo OldJar() {
    pb::JarInfo jar;
    jar.set_path("/run/jenkins-agent/jar/agent.jar");
    jar.set_main_class("hudson.remoting.jnlp.Main");
    jar.set_generation(pb::LAUNCHER_HUDSON);
    jar.set_min_java(5);
    return jar;
  }
};

TEST_F(Agent, WaitsForTheJarThenConnects) {
  ASSERT_OK_AND_ASSIGN(
      const pb::TaskStatus status,
      Start(AgentSpec("echo $1 $JAVA_HOME; cat /run/jenkins-agent/args; echo 'INFO: Connected' >&2;"
                      "exec sleep 1000")));
  EXPECT_EQ(status.state(), pb::WAITING_FOR_JAR);
  EXPECT_EQ(status.agent_url(), "http://controller.example/");
  EXPECT_EQ(status.payload_pid(), 0);
  EXPECT_OK(watcher().Note("waiting for controller: connection refused"));
  EXPECT_TRUE(watcher().WaitEvent("connection refused"));
  EXPECT_EQ(watcher().Status().phase_detail(), "waiting for controller: connection refused");
  EXPECT_THAT(watcher().Signal(SIGUSR1),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("waiting for controller")));

  EXPECT_OK(watcher().JarReady(OldJar()));
  EXPECT_TRUE(watcher().WaitEvent("connected"));
  const pb::TaskStatus running = watcher().Status();
  EXPECT_EQ(running.state(), pb::RUNNING);
  EXPECT_EQ(running.phase(), pb::PHASE_CONNECTED);
  EXPECT_EQ(running.java_home(), directory() + "/jdk");
  EXPECT_GT(running.timings().connected_ms(), running.timings().jar_ms());
  EXPECT_TRUE(ProcessAlive(running.payload_pid()));
  // What the plugin's probes need.
  ASSERT_OK_AND_ASSIGN(const uint64_t start_time, ProcessStartTime(running.payload_pid()));
  EXPECT_EQ(running.payload_start_time(), start_time);
  EXPECT_TRUE(running.has_health());
  EXPECT_THAT(Stdout(), HasSubstr("@/run/jenkins-agent/args " + directory() + "/jdk\n"));
  EXPECT_THAT(Stdout(), HasSubstr("\"deadbeef\"\n\"linux-1\""));

  EXPECT_OK(watcher().Stop(SIGTERM, kTestDeadline));
  const auto exit = watcher().WaitExit();
  ASSERT_TRUE(exit);
  EXPECT_EQ(exit->exit_code(), 143);
  EXPECT_EQ(exit->message(), "");
  ExpectNothingLeft(running);
}

// Whoever has the task's user can end the process that waits in the cgroups for the program.
TEST_F(Agent, AKilledProcessThatWaitedForTheJarIsReplaced) {
  ASSERT_OK_AND_ASSIGN(const pb::TaskStatus status, Start(AgentSpec(kConnectsAndStays)));
  const std::string processes = status.cgroup_dirs(0) + "/cgroup.procs";
  EXPECT_NE(ReadFile(processes).value_or(""), "");
  auto session = Reconnect();
  ASSERT_TRUE(session);
  ASSERT_OK(session->Exec({"/bin/sh", "-c", "kill -9 -1"}));
  ASSERT_TRUE(Eventually([&] { return ReadFile(processes).value_or("?").empty(); }));
  ASSERT_OK(watcher().JarReady(OldJar()));
  EXPECT_TRUE(watcher().WaitEvent("connected"));
  EXPECT_EQ(watcher().Status().launches(), 1u);
  EXPECT_OK(watcher().Stop(SIGKILL, kTestDeadline));
  ASSERT_TRUE(watcher().WaitExit());
}

TEST_F(Agent, LinesThatComeTogetherAreEventsOfTheirOwnPhases) {
  ASSERT_OK(
      Start(AgentSpec("printf 'INFO: Locating server among [x]\\nINFO: Connecting to h:1\\n"
                      "INFO: Connected\\n' >&2; exec sleep 1000")));
  EXPECT_OK(watcher().JarReady(OldJar()));
  EXPECT_TRUE(watcher().WaitEvent("PHASE_LOCATING locating"));
  EXPECT_TRUE(watcher().WaitEvent("PHASE_HANDSHAKING handshaking: h:1"));
  EXPECT_TRUE(watcher().WaitEvent("PHASE_CONNECTED connected"));
}

TEST_F(Agent, WithoutAUsableJavaTheStartFails) {
  pb::LaunchSpec spec = AgentSpec("true");
  spec.mutable_agent()->mutable_java_homes()->RemoveLast();
  EXPECT_THAT(Start(spec),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("/opt/no-jdk/bin/java")));
  EXPECT_FALSE(RecordOnDisk());
}

TEST_F(Agent, AStopWhileItWaitsForTheJarEndsItAtOnce) {
  ASSERT_OK_AND_ASSIGN(const pb::TaskStatus status, Start(AgentSpec("true")));
  EXPECT_OK(watcher().Stop(SIGTERM, kTestDeadline));
  const auto exit = watcher().WaitExit();
  ASSERT_TRUE(exit);
  EXPECT_EQ(exit->exit_code(), 143);
  EXPECT_EQ(exit->launches(), 0u);
  ExpectNothingLeft(status);
}

TEST_F(Agent, AJarThatNoJavaCanRunEndsTheTask) {
  ASSERT_OK(Start(AgentSpec("true")));
  pb::JarInfo jar = OldJar();
  jar.set_min_java(99);
  EXPECT_FALSE(watcher().JarReady(jar).ok());
  const auto exit = watcher().WaitExit();
  ASSERT_TRUE(exit);
  EXPECT_NE(exit->exit_code(), 0);
  EXPECT_THAT(exit->message(), HasSubstr("99"));
}

TEST_F(Agent, IsLaunchedAgainWhileTheControllerIsDown) {
  ASSERT_OK(
      Start(AgentSpec(absl::StrCat("if [ ! -e tried ]; then touch tried;", kControllerIsDown,
                                   "; fi; cat /run/jenkins-agent/args;", kConnectsAndStays))));
  ASSERT_OK(watcher().JarReady(OldJar()));
  EXPECT_TRUE(watcher().WaitEvent("connected"));
  const pb::TaskStatus status = watcher().Status();
  EXPECT_EQ(status.state(), pb::RUNNING);
  EXPECT_EQ(status.launches(), 2u);
  EXPECT_THAT(Stdout(), HasSubstr("\"deadbeef\""));
  EXPECT_OK(watcher().Stop(SIGTERM, kTestDeadline));
  ASSERT_TRUE(watcher().WaitExit());
  ExpectNothingLeft(status);
}

// A restart in place is no start: where pid 1 can bear nobody in the cgroup, an entrant comes.
TEST_F(Agent, ARestartMovesNobodyIntoACgroup) {
  const auto hierarchy = cgroups::Hierarchy::Detect();
  ASSERT_OK(hierarchy);
  if (!hierarchy->namespaces_delegate()) GTEST_SKIP() << "no cgroup2 with nsdelegate here";
  const CgroupMoves moves;
  ASSERT_OK_AND_ASSIGN(
      const pb::TaskStatus status,
      Start(AgentSpec(absl::StrCat("echo x >>launches; if [ $(wc -l <launches) -lt 3 ]; then ",
                                   kControllerIsDown, "; fi;", kConnectsAndStays))));
  ASSERT_OK(watcher().JarReady(OldJar()));
  EXPECT_TRUE(watcher().WaitEvent("connected"));
  EXPECT_EQ(watcher().Status().launches(), 3u);
  EXPECT_FALSE(moves.Into(status.cgroup_dirs(0)));
  EXPECT_THAT(Content("task/supervisor.log"), testing::Not(HasSubstr("no entrant")));
  moves.ExpectThatAMoveIsSeen(status.cgroup_dirs(0));
}

TEST_F(Agent, IsLaunchedAgainWhileThePluginIsAway) {
  ASSERT_OK(Start(AgentSpec(
      absl::StrCat("if [ ! -e went ]; then until [ -e go ]; do sleep 0.02; done; touch went;",
                   kControllerIsDown, "; fi;", kConnectsAndStays))));
  ASSERT_OK(watcher().JarReady(OldJar()));
  ASSERT_TRUE(Eventually([this] { return watcher().Status().payload_pid() != 0; }));
  DropConnection();
  ASSERT_OK(WriteFileAtomic(Local("go"), ""));
  ASSERT_TRUE(Eventually([this] { return absl::StrContains(Stderr(), "INFO: Connected\n"); }));
  auto reconnected = Reconnect();
  ASSERT_TRUE(reconnected);
  const pb::TaskStatus status = reconnected->Status();
  EXPECT_EQ(status.state(), pb::RUNNING);
  EXPECT_EQ(status.launches(), 2u);
  EXPECT_TRUE(reconnected->WaitEvent("connected"));
  EXPECT_OK(reconnected->Stop(SIGTERM, kTestDeadline));
  ASSERT_TRUE(reconnected->WaitExit());
  ExpectNothingLeft(status);
}

TEST_F(Agent, AStopWhileItBacksOffEndsIt) {
  ASSERT_OK(Start(AgentSpec(kControllerIsDown)));
  ASSERT_OK(watcher().JarReady(OldJar()));
  ASSERT_TRUE(Eventually([this] { return watcher().Status().state() == pb::BACKING_OFF; }));
  EXPECT_OK(watcher().Stop(SIGTERM, kTestDeadline));
  const auto exit = watcher().WaitExit();
  ASSERT_TRUE(exit);
  EXPECT_EQ(exit->exit_code(), 143);
  EXPECT_EQ(exit->message(), "");
}

TEST_F(Agent, ADeadJvmEndsTheTaskWithItsStoryWhenNoRestartIsAllowed) {
  pb::LaunchSpec spec = AgentSpec("echo 'INFO: Connected' >&2; kill -9 $$");
  spec.mutable_agent()->mutable_health()->set_disabled(true);
  ASSERT_OK(Start(spec));
  ASSERT_OK(watcher().JarReady(OldJar()));
  const auto exit = watcher().WaitExit();
  ASSERT_TRUE(exit);
  EXPECT_EQ(exit->signal(), SIGKILL);
  EXPECT_EQ(exit->exit_code(), 137);
  EXPECT_THAT(exit->message(), HasSubstr("signal 9"));
  EXPECT_EQ(exit->restarts(), 0u);
}

// The wrapper of a durable build step is no session leader and stays in the JVM's process group.
TEST_F(Agent, ADeadJvmIsRestartedAmidItsDurableBuilds) {
  ASSERT_OK(
      Start(AgentSpec("if [ ! -e first ]; then touch first;"
                      "(JENKINS_SERVER_COOKIE=durable-1 exec sleep 1001) & echo $! >durable;"
                      "sleep 1002 & echo $! >lost; setsid sleep 1003 & echo $! >daemon; fi;"
                      "echo 'INFO: Connected' >&2; exec sleep 1000")));
  ASSERT_OK(watcher().JarReady(OldJar()));
  ASSERT_TRUE(watcher().WaitEvent("connected"));
  const pb::TaskStatus before = watcher().Status();
  ASSERT_TRUE(Eventually([&] { return Commands("sleep 100").size() == 4; }));
  ASSERT_EQ(::kill(before.payload_pid(), SIGKILL), 0);
  ASSERT_TRUE(Eventually([&] { return watcher().Status().launches() == 2; }));
  EXPECT_TRUE(watcher().WaitEvent("restarting it in place"));
  const pb::TaskStatus after = watcher().Status();
  EXPECT_EQ(after.restarts(), 1u);
  EXPECT_EQ(after.init_pid(), before.init_pid());
  EXPECT_NE(after.payload_pid(), before.payload_pid());
  EXPECT_TRUE(Eventually([&] {
    return Commands("sleep 100") == std::set<std::string>{"sleep 1000", "sleep 1001"};
  })) << ::testing::PrintToString(Commands("sleep 100"));
  EXPECT_OK(watcher().Stop(SIGTERM, kTestDeadline));
  const auto exit = watcher().WaitExit();
  ASSERT_TRUE(exit);
  EXPECT_EQ(exit->restarts(), 1u);
  ExpectNothingLeft(after);
}

TEST_F(Agent, LeftoversStayOrGoAsTheJobSays) {
  for (const bool keep : {true, false}) {
    pb::LaunchSpec spec = AgentSpec(
        "if [ ! -e first ]; then touch first; (JENKINS_SERVER_COOKIE=durable-1 exec sleep 1001) &"
        "sleep 1002 & fi; echo 'INFO: Connected' >&2; exec sleep 1000");
    spec.mutable_agent()->mutable_health()->set_leftovers(keep ? pb::HealthSpec::KEEP
                                                               : pb::HealthSpec::KILL);
    ASSERT_OK(Start(spec));
    ASSERT_OK(watcher().JarReady(OldJar()));
    ASSERT_TRUE(watcher().WaitEvent("connected"));
    ASSERT_EQ(::kill(watcher().Status().payload_pid(), SIGKILL), 0);
    ASSERT_TRUE(Eventually([&] { return watcher().Status().launches() == 2; }));
    const std::set<std::string> expected =
        keep ? std::set<std::string>{"sleep 1000", "sleep 1001", "sleep 1002"}
             : std::set<std::string>{"sleep 1000"};
    EXPECT_TRUE(Eventually([&] { return Commands("sleep 100") == expected; }))
        << ::testing::PrintToString(Commands("sleep 100"));
    EXPECT_OK(watcher().Stop(SIGKILL, kTestDeadline));
    ASSERT_TRUE(watcher().WaitExit());
    ASSERT_OK(RemoveTree(directory() + "/task"));
    ASSERT_OK(MakeDirs(directory() + "/task"));
    ASSERT_EQ(::unlink(Local("first").c_str()), 0);
  }
}

// SIGSTOP keeps the socket and the pid, and lets no signal but SIGKILL through.
// The launcher in a job's own command line: no agent.jar is waited for.
class OwnCommand : public Agent {
 protected:
  pb::LaunchSpec OwnAgent(const std::string& script, const std::string& jar) {
    pb::LaunchSpec spec = Shell(script);
    spec.mutable_agent()->set_name("linux-1");
    spec.mutable_agent()->set_own_command(true);
    spec.mutable_agent()->set_jar(jar);
    return spec;
  }
};

TEST_F(OwnCommand, AKnownLauncherIsAnAgentFromTheBeginning) {
  ASSERT_OK_AND_ASSIGN(const pb::TaskStatus status,
                       Start(OwnAgent("echo 'INFO: Connected' >&2; exec sleep 1000", /*jar=*/"")));
  EXPECT_EQ(status.state(), pb::RUNNING);
  EXPECT_TRUE(status.has_health());
  EXPECT_EQ(status.jar_path(), "");
  ASSERT_TRUE(Eventually([&] { return watcher().Status().phase() == pb::PHASE_CONNECTED; }));
  ASSERT_EQ(::kill(watcher().Status().payload_pid(), SIGKILL), 0);
  EXPECT_TRUE(watcher().WaitEvent("killed by signal 9"));
  ASSERT_TRUE(Eventually([&] {
    const pb::TaskStatus now = watcher().Status();
    return now.launches() == 2 && now.phase() == pb::PHASE_CONNECTED;
  }));
  EXPECT_EQ(watcher().Status().restarts(), 1u);
  EXPECT_OK(watcher().Stop(SIGTERM, kTestDeadline));
  ASSERT_TRUE(watcher().WaitExit());
}

TEST_F(OwnCommand, AJarIsAnAgentOnceItWasLookedAt) {
  ASSERT_OK_AND_ASSIGN(
      pb::TaskStatus status,
      Start(OwnAgent("echo 'INFO: Connected' >&2; touch said; exec sleep 1000", "/local/a.jar")));
  EXPECT_EQ(status.state(), pb::RUNNING);
  EXPECT_EQ(status.jar_path(), "/local/a.jar");
  EXPECT_FALSE(status.has_health());
  EXPECT_EQ(status.phase(), pb::PHASE_NONE);
  ASSERT_TRUE(Eventually([&] { return PathExists(Local("said")); }));
  ASSERT_OK(watcher().JarReady(OldJar()));
  // What it said before is known.
  EXPECT_TRUE(watcher().WaitEvent("PHASE_CONNECTED connected"));
  status = watcher().Status();
  EXPECT_EQ(status.jar_path(), "");
  EXPECT_TRUE(status.has_health());
  ASSERT_EQ(::kill(status.payload_pid(), SIGKILL), 0);
  ASSERT_TRUE(Eventually([&] { return watcher().Status().launches() == 2; }));
  EXPECT_OK(watcher().Stop(SIGTERM, kTestDeadline));
  ASSERT_TRUE(watcher().WaitExit());
}

TEST_F(OwnCommand, AJarThatIsNoAgentEndsAsAnyProgram) {
  ASSERT_OK(Start(OwnAgent("echo 'INFO: Connected' >&2; exit 7", "/local/a.jar")));
  const std::optional<pb::ExitRecord> exit = watcher().WaitExit();
  ASSERT_TRUE(exit);
  EXPECT_EQ(exit->exit_code(), 7);
  EXPECT_EQ(exit->launches(), 1u);
  EXPECT_EQ(exit->message(), "");
}

TEST_F(Agent, AVerdictContinuesDumpsAndRestartsTheJvm) {
  ASSERT_OK(
      Start(AgentSpec("trap 'echo Full thread dump' QUIT; trap 'exit 143' TERM;"
                      "echo 'INFO: Connected' >&2; while :; do sleep 0.05; done")));
  ASSERT_OK(watcher().JarReady(OldJar()));
  ASSERT_TRUE(watcher().WaitEvent("connected"));
  const pb::TaskStatus before = watcher().Status();
  ASSERT_EQ(::kill(before.payload_pid(), SIGSTOP), 0);
  EXPECT_OK(watcher().Verdict("its process is stopped (state T), for 60 s", before.launches()));
  EXPECT_TRUE(watcher().WaitEvent("hangs: its process is stopped"));
  ASSERT_TRUE(Eventually([&] { return watcher().Status().launches() == 2; }));
  EXPECT_THAT(Stdout(), HasSubstr("Full thread dump"));
  EXPECT_EQ(watcher().Status().restarts(), 1u);
  // A verdict on the JVM that is gone must not hit its successor.
  EXPECT_THAT(watcher().Verdict("late", before.launches()),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("restarted meanwhile")));
  EXPECT_OK(watcher().Stop(SIGTERM, kTestDeadline));
  ASSERT_TRUE(watcher().WaitExit());
}

TEST_F(Agent, AnIdleJvmThatIsTooOldIsReplacedAndNothingIsCounted) {
  pb::LaunchSpec spec = AgentSpec(kConnectsAndStays);
  spec.mutable_agent()->mutable_health()->mutable_restart()->set_attempts(0);
  ASSERT_OK(Start(spec));
  ASSERT_OK(watcher().JarReady(OldJar()));
  ASSERT_TRUE(watcher().WaitEvent("connected"));
  EXPECT_OK(watcher().Aged("idle and 60 minutes old", watcher().Status().launches()));
  EXPECT_TRUE(watcher().WaitEvent("idle and 60 minutes old; replacing it"));
  ASSERT_TRUE(Eventually([&] { return watcher().Status().launches() == 2; }));
  EXPECT_EQ(watcher().Status().restarts(), 0u);
  EXPECT_THAT(Stdout(), Not(HasSubstr("thread dump")));
  EXPECT_OK(watcher().Stop(SIGTERM, kTestDeadline));
  ASSERT_TRUE(watcher().WaitExit());
}

TEST_F(Agent, AOneShotAgentThatIsDoneCompletesItsTask) {
  pb::LaunchSpec spec = AgentSpec(
      "echo 'INFO: Connected' >&2; until [ -e ended ]; do sleep 0.05; done;"
      "echo 'INFO: Terminated' >&2; exec sleep 1000");
  spec.mutable_agent()->set_one_shot(true);
  ASSERT_OK(Start(spec));
  ASSERT_OK(watcher().JarReady(OldJar()));
  ASSERT_TRUE(watcher().WaitEvent("connected"));
  EXPECT_THAT(watcher().Done(1),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("connected again")));
  ASSERT_OK(WriteFileAtomic(Local("ended"), ""));
  ASSERT_TRUE(Eventually([&] { return watcher().Status().phase() == pb::PHASE_TERMINATED; }));
  EXPECT_OK(watcher().Done(1));
  const auto exit = watcher().WaitExit();
  ASSERT_TRUE(exit);
  EXPECT_EQ(exit->exit_code(), 0);
  EXPECT_EQ(exit->signal(), 0);
  EXPECT_EQ(exit->message(), "");
}

TEST_F(Agent, AJvmThatDiesAgainAndAgainEndsTheTaskWithTheWholeStory) {
  pb::LaunchSpec spec = AgentSpec("echo 'INFO: Connected' >&2; exit 3");
  pb::HealthSpec::RestartBudget& budget =
      *spec.mutable_agent()->mutable_health()->mutable_restart();
  budget.set_attempts(3);
  budget.set_interval_ms(600'000);
  budget.set_delay_ms(10);
  budget.set_max_delay_ms(20);
  ASSERT_OK(Start(spec));
  ASSERT_OK(watcher().JarReady(OldJar()));
  const auto exit = watcher().WaitExit();
  ASSERT_TRUE(exit);
  EXPECT_EQ(exit->launches(), 4u);
  EXPECT_EQ(exit->restarts(), 3u);
  EXPECT_EQ(exit->exit_code(), 3);
  EXPECT_EQ(exit->message(),
            "the agent's JVM exited with code 3 while connected; restarted 3 times within 10 "
            "minutes, all that health.restart allows");
}

TEST_F(Agent, TellsWhatItIsAndWhatHappenedLastInEveryPhase) {
  ASSERT_OK(Start(AgentSpec(kConnectsAndStays)));
  EXPECT_FALSE(watcher().Status().has_last_event());
  ASSERT_OK(watcher().JarReady(OldJar()));
  ASSERT_TRUE(watcher().WaitEvent("connected"));
  const pb::TaskStatus status = watcher().Status();
  EXPECT_EQ(status.agent_name(), "linux-1");
  EXPECT_EQ(status.agent_urls(0), "http://controller.example/");
  EXPECT_EQ(status.last_event().message(), "connected");
  EXPECT_GT(status.last_event().time_ns(), status.started_at_ns());
  // A new JVM begins anew.
  ASSERT_EQ(::kill(status.payload_pid(), SIGKILL), 0);
  ASSERT_TRUE(Eventually([&] { return watcher().Status().launches() == 2; }));
  EXPECT_GT(watcher().Status().phase_since_ns(), status.phase_since_ns());
  EXPECT_OK(watcher().Stop(SIGTERM, kTestDeadline));
  ASSERT_TRUE(watcher().WaitExit());
}

TEST_F(Agent, WritesAThreadDumpWhenAskedAndSaysWhyNotElse) {
  pb::ControlRequest dump;
  dump.mutable_thread_dump();
  ASSERT_OK(
      Start(AgentSpec("trap 'echo Full thread dump' QUIT; echo 'INFO: Connected' >&2;"
                      "while :; do sleep 0.05; done")));
  EXPECT_THAT(watcher().Call(dump),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("no JVM of the agent")));
  ASSERT_OK(watcher().JarReady(OldJar()));
  ASSERT_TRUE(watcher().WaitEvent("connected"));
  const pid_t jvm = watcher().Status().payload_pid();
  ASSERT_EQ(::kill(jvm, SIGSTOP), 0);
  ASSERT_TRUE(Eventually([jvm] { return ProcessStopped(jvm); }));
  EXPECT_THAT(watcher().Call(dump), StatusIs(absl::StatusCode::kFailedPrecondition,
                                             HasSubstr(absl::StrCat("kill -CONT ", jvm))));
  ASSERT_EQ(::kill(jvm, SIGCONT), 0);
  ASSERT_TRUE(Eventually([jvm] { return !ProcessStopped(jvm); }));
  EXPECT_EQ(Stdout(), "");
  EXPECT_OK(watcher().Call(dump));
  EXPECT_TRUE(Eventually([this] { return Stdout() == "Full thread dump\n"; }));
  EXPECT_EQ(watcher().Status().payload_pid(), jvm);
  EXPECT_EQ(watcher().Status().restarts(), 0u);
  EXPECT_OK(watcher().Stop(SIGKILL, kTestDeadline));
  ASSERT_TRUE(watcher().WaitExit());
}

TEST_F(Agent, NoThreadDumpIntoALogThatNobodyReads) {
  pb::LaunchSpec spec = AgentSpec(
      "trap : QUIT; echo 'INFO: Connected' >&2; head -c 300000 /dev/zero;"
      "while :; do sleep 0.05; done");
  ASSERT_EQ(::mkfifo((directory() + "/fifo").c_str(), 0600), 0);
  ASSERT_OK_AND_ASSIGN(const Fd reader, OpenFile(directory() + "/fifo", O_RDWR | O_NONBLOCK));
  spec.mutable_output()->set_stdout_path(directory() + "/fifo");
  spec.mutable_output()->set_patience_ms(600'000);
  ASSERT_OK(Start(spec));
  ASSERT_OK(watcher().JarReady(OldJar()));
  ASSERT_TRUE(watcher().WaitEvent("connected"));
  pb::ControlRequest dump;
  dump.mutable_thread_dump();
  EXPECT_TRUE(Eventually(
      [&] { return absl::StrContains(watcher().Call(dump).status().message(), "nobody reads"); }));
  EXPECT_OK(watcher().Stop(SIGKILL, kTestDeadline));
  ASSERT_TRUE(watcher().WaitExit());
}

TEST_F(Agent, AnyOtherProgramGetsNoSignalForAThreadDump) {
  ASSERT_OK(Start(Shell("exec sleep 1000")));
  pb::ControlRequest dump;
  dump.mutable_thread_dump();
  EXPECT_THAT(watcher().Call(dump),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("is no agent")));
  EXPECT_EQ(watcher().Status().state(), pb::RUNNING);
  EXPECT_OK(watcher().Stop(SIGKILL, kTestDeadline));
  ASSERT_TRUE(watcher().WaitExit());
}

// The plugin died before it took the task up: an operator who looks must not keep the task alive.
TEST_F(Agent, WhoOnlyLooksDoesNotTakeATaskUp) {
  ASSERT_OK_AND_ASSIGN(Fd connection, Spawn(AgentSpec("true")));
  ASSERT_OK_AND_ASSIGN(const pb::TaskStatus started, AwaitStart(connection.get(), kTestDeadline));
  pb::ControlRequest look;
  look.mutable_hello()->set_look_only(true);
  const auto seen = CallSupervisors({TaskDir()}, look, kTestDeadline);
  ASSERT_OK(seen.front());
  EXPECT_EQ(seen.front()->status().state(), pb::WAITING_FOR_JAR);
  connection.Reset();
  EXPECT_TRUE(Eventually([&] { return !ProcessAlive(started.init_pid()); }));
  EXPECT_TRUE(Eventually([this] { return !PathExists(TaskDir() + "/control.sock"); }));
}

// An operator's session is no build.
TEST_F(Agent, ARestartLeavesExecSessionsAlone) {
  ASSERT_OK(Start(AgentSpec(kConnectsAndStays)));
  ASSERT_OK(watcher().JarReady(OldJar()));
  ASSERT_TRUE(watcher().WaitEvent("connected"));
  auto session = Reconnect();
  ASSERT_TRUE(session);
  ASSERT_OK(session->Exec({"/bin/sleep", "1004"}));
  ASSERT_TRUE(Eventually([&] { return Commands("sleep 1004").size() == 1; }));
  ASSERT_EQ(::kill(watcher().Status().payload_pid(), SIGKILL), 0);
  ASSERT_TRUE(Eventually([&] { return watcher().Status().launches() == 2; }));
  EXPECT_EQ(Commands("sleep 1004").size(), 1u);
  EXPECT_OK(watcher().Stop(SIGKILL, kTestDeadline));
  ASSERT_TRUE(watcher().WaitExit());
}

TEST_F(Agent, EventsWaitForTheNextConnection) {
  ASSERT_OK(
      Start(AgentSpec("until [ -e go ]; do sleep 0.05; done; echo 'INFO: Connected' >&2;"
                      "touch done; exec sleep 1000")));
  ASSERT_OK(watcher().JarReady(OldJar()));
  DropConnection();
  ASSERT_OK(WriteFileAtomic(Local("go"), ""));
  ASSERT_TRUE(Eventually([this] { return Stderr() == "INFO: Connected\n"; }));
  auto reconnected = Reconnect();
  ASSERT_TRUE(reconnected);
  reconnected->Status();
  EXPECT_TRUE(reconnected->WaitEvent("connected"));
  EXPECT_OK(reconnected->Stop(SIGKILL, kTestDeadline));
  EXPECT_TRUE(reconnected->WaitExit());
}

}  // namespace
}  // namespace jenkins_agent
