#include "driver/agent/restart_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include "tests/agent/recorded.h"

namespace jenkins_agent {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;
using ::testing::HasSubstr;

constexpr int Exited(int code) { return code << 8; }

// Of an agent that was connected once.
ExitFacts Facts(int wait_status, pb::AgentPhase phase) {
  ExitFacts facts;
  facts.wait_status = wait_status;
  facts.phase = phase;
  facts.ever_connected = true;
  return facts;
}

// A supervisor without processes: feeds recorded output to tracker and policy on a clock of its
// own.
class RestartPolicyTest : public ::testing::Test {
 protected:
  void Launch() {
    tracker_.OnLaunch();
    policy_.OnLaunch();
  }
  Decision Print(const char* output) {
    Decision decision;
    for (const PhaseChange& change : tracker_.Feed(2, output)) {
      decision = policy_.OnPhase(change, now_);
      if (decision.kind != Decision::kNone) return decision;
    }
    return decision;
  }
  Decision Exit(int wait_status) {
    return policy_.OnExit(MakeExitFacts(tracker_, wait_status), now_);
  }
  Decision LaunchPrintExit(const char* output, int wait_status) {
    Launch();
    Print(output);
    return Exit(wait_status);
  }

  PhaseTracker tracker_;
  RestartPolicy policy_{"linux-1"};
  RestartPolicy::TimePoint now_{};
};

TEST_F(RestartPolicyTest, WaitsForAnUnreachableControllerWithoutLimit) {
  std::vector<int64_t> delays;
  for (int i = 0; i < 8; ++i) {
    const Decision decision = LaunchPrintExit(
        i % 2 ? recorded::kOldStarting503 : recorded::kOldRefusedConnection, Exited(255));
    ASSERT_EQ(decision.kind, Decision::kRelaunch);
    delays.push_back(decision.delay.count());
    now_ += minutes(10);
  }
  EXPECT_THAT(delays, ::testing::ElementsAre(1000, 2000, 4000, 8000, 10000, 10000, 10000, 10000));
  EXPECT_EQ(LaunchPrintExit(recorded::kOldPortOff404, Exited(255)).kind, Decision::kRelaunch);
}

TEST_F(RestartPolicyTest, BackOffBeginsAgainAfterAConnection) {
  for (int i = 0; i < 5; ++i) LaunchPrintExit(recorded::kOldRefusedConnection, Exited(255));
  Launch();
  Print(recorded::kOldConnected);
  Print("INFO: Terminated\n");
  Print(recorded::kOldRefusedConnection);
  EXPECT_EQ(Exit(Exited(255)).delay, seconds(1));
}

TEST_F(RestartPolicyTest, SecondWrongSecretEndsTheTask) {
  Decision decision = LaunchPrintExit(recorded::kOldWrongSecret, Exited(255));
  EXPECT_EQ(decision.kind, Decision::kRelaunch);
  EXPECT_EQ(decision.delay, seconds(5));
  Launch();
  decision = Print(recorded::kOldWrongSecret);
  EXPECT_EQ(decision.kind, Decision::kEnd);
  EXPECT_EQ(decision.message,
            "the controller refused agent 'linux-1': wrong secret (Unauthorized access)");
  EXPECT_NE(decision.exit_code, 0);
  // The JVM ends by itself at the same time: the answer stays the same.
  EXPECT_EQ(Exit(Exited(255)).message, decision.message);
}

TEST_F(RestartPolicyTest, WrongSecretOfALoopingAgentIsCountedToo) {
  Launch();
  EXPECT_EQ(Print(recorded::kCurrentWrongSecret).kind, Decision::kNone);
  now_ += seconds(10);
  const Decision decision = Print(recorded::kCurrentWrongSecret);
  EXPECT_EQ(decision.kind, Decision::kEnd);
  EXPECT_THAT(decision.message, HasSubstr("Authorization failure"));
}

TEST_F(RestartPolicyTest, AnExitAloneCountsWhenItsLineWasNotSeenBefore) {
  ExitFacts facts;
  facts.wait_status = Exited(255);
  facts.phase = pb::PHASE_REFUSED;
  facts.refusal = Refusal::kWrongSecret;
  EXPECT_EQ(policy_.OnExit(facts, now_).kind, Decision::kRelaunch);
  policy_.OnLaunch();
  EXPECT_EQ(policy_.OnExit(facts, now_).kind, Decision::kEnd);
}

TEST_F(RestartPolicyTest, AConnectionBetweenForgivesAWrongSecret) {
  LaunchPrintExit(recorded::kOldWrongSecret, Exited(255));
  Launch();
  Print(recorded::kOldConnected);
  Print("INFO: Terminated\n");
  EXPECT_EQ(Print(recorded::kOldWrongSecret).kind, Decision::kNone);
}

TEST_F(RestartPolicyTest, UnknownNameIsTriedForFiveMinutes) {
  EXPECT_EQ(LaunchPrintExit(recorded::kOldUnknownName, Exited(255)).delay, seconds(1));
  now_ += minutes(4);
  EXPECT_EQ(LaunchPrintExit(recorded::kOldUnknownName, Exited(255)).delay, seconds(2));
  now_ += minutes(1);
  const Decision decision = LaunchPrintExit(recorded::kOldUnknownName, Exited(255));
  EXPECT_EQ(decision.kind, Decision::kEnd);
  EXPECT_THAT(decision.message, HasSubstr("unknown agent name (No such slave: linux-1)"));
}

TEST_F(RestartPolicyTest, TimeSpentWaitingForTheControllerDoesNotCountAgainstTheName) {
  LaunchPrintExit(recorded::kOldRefusedConnection, Exited(255));
  now_ += minutes(60);
  EXPECT_EQ(LaunchPrintExit(recorded::kOldUnknownName, Exited(255)).kind, Decision::kRelaunch);
}

TEST_F(RestartPolicyTest, UnknownNameAfterAConnectionIsAnOrphan) {
  Launch();
  Print(recorded::kOldConnected);
  const Decision decision = Print(recorded::kOldUnknownName);
  EXPECT_EQ(decision.kind, Decision::kEnd);
  EXPECT_THAT(decision.message, HasSubstr("its node was deleted"));
}

TEST_F(RestartPolicyTest, NameInUseIsTriedForFiveMinutes) {
  Launch();
  EXPECT_EQ(Print(recorded::kCurrentNameInUse).kind, Decision::kNone);
  now_ += minutes(5) - seconds(1);
  EXPECT_EQ(Print(recorded::kCurrentNameInUse).kind, Decision::kNone);
  now_ += seconds(1);
  EXPECT_EQ(Print(recorded::kCurrentNameInUse).kind, Decision::kEnd);
}

TEST_F(RestartPolicyTest, UsageErrorFailsAlthoughTheAgentExitsZero) {
  const Decision decision = LaunchPrintExit(recorded::kOldUsage, Exited(0));
  EXPECT_EQ(decision.kind, Decision::kEnd);
  EXPECT_EQ(decision.exit_code, 1);
  EXPECT_THAT(decision.message, HasSubstr("is not a valid option"));
}

TEST_F(RestartPolicyTest, UnfitJdkEndsTheTask) {
  EXPECT_EQ(LaunchPrintExit(recorded::kOldOnJava25, Exited(1)).kind, Decision::kEnd);
}

TEST_F(RestartPolicyTest, ADeadJvmIsRestartedAtOnce) {
  Launch();
  Print(recorded::kOldConnected);
  const Decision decision = Exit(SIGKILL);
  EXPECT_EQ(decision.kind, Decision::kRelaunch);
  EXPECT_TRUE(decision.counted);
  EXPECT_EQ(decision.delay, seconds(0));
  EXPECT_THAT(decision.message, HasSubstr("killed by signal 9"));
  EXPECT_EQ(policy_.restarts(), 1);
}

TEST_F(RestartPolicyTest, ABudgetThatIsSpentEndsTheTaskWithTheWholeStory) {
  std::vector<int64_t> delays;
  Decision decision;
  for (int i = 0; i < 5; ++i) {
    Launch();
    Print(recorded::kOldConnected);
    decision = Exit(Exited(3));
    ASSERT_EQ(decision.kind, Decision::kRelaunch);
    delays.push_back(decision.delay.count());
    now_ += minutes(1);
  }
  EXPECT_THAT(delays, ::testing::ElementsAre(0, 1000, 2000, 4000, 8000));
  Launch();
  decision = Exit(Exited(3));
  EXPECT_EQ(decision.kind, Decision::kEnd);
  EXPECT_EQ(decision.exit_code, 3);
  EXPECT_EQ(decision.message,
            "the agent's JVM exited with code 3 while starting; restarted 5 times within 10 "
            "minutes, all that health.restart allows");
}

TEST_F(RestartPolicyTest, TheBudgetComesBackWithTime) {
  for (int i = 0; i < 100; ++i) {
    Launch();
    Print(recorded::kOldConnected);
    ASSERT_EQ(Exit(SIGKILL).kind, Decision::kRelaunch);
    now_ += minutes(2);
  }
  EXPECT_EQ(policy_.restarts(), 100);
}

TEST_F(RestartPolicyTest, TheDelayHasALimit) {
  RestartPolicy policy("linux-1", {.attempts = 100});
  Decision decision;
  for (int i = 0; i < 100; ++i) decision = policy.OnVerdict("x", now_), policy.OnLaunch();
  EXPECT_EQ(decision.delay, minutes(1));
}

TEST_F(RestartPolicyTest, WithoutABudgetTheFirstDeathEndsTheTask) {
  RestartPolicy policy("linux-1", {.attempts = 0});
  ExitFacts facts;
  facts.wait_status = SIGKILL;
  const Decision decision = policy.OnExit(facts, now_);
  EXPECT_EQ(decision.kind, Decision::kEnd);
  EXPECT_EQ(decision.exit_code, 137);
  EXPECT_THAT(decision.message, ::testing::Not(HasSubstr("restarted")));
}

TEST_F(RestartPolicyTest, AControllerThatIsDownNeverCostsBudget) {
  for (int i = 0; i < 200; ++i) {
    const Decision decision = LaunchPrintExit(recorded::kOldRefusedConnection, Exited(255));
    ASSERT_EQ(decision.kind, Decision::kRelaunch);
    ASSERT_FALSE(decision.counted);
  }
  EXPECT_EQ(policy_.restarts(), 0);
}

TEST_F(RestartPolicyTest, AVerdictStopsTheJvmAndItsExitIsNotJudgedAgain) {
  Launch();
  Print(recorded::kOldConnected);
  const Decision verdict = policy_.OnVerdict("its process is stopped (state T), for 60 s", now_);
  EXPECT_EQ(verdict.kind, Decision::kRestart);
  EXPECT_EQ(verdict.message, "agent 'linux-1' hangs: its process is stopped (state T), for 60 s");
  EXPECT_EQ(policy_.OnVerdict("the same again", now_).kind, Decision::kNone);
  const Decision exit = Exit(SIGKILL);
  EXPECT_EQ(exit.kind, Decision::kRelaunch);
  EXPECT_TRUE(exit.counted);
  EXPECT_EQ(RestartReasonName(exit.reason), "hung");
  EXPECT_EQ(policy_.restarts(), 1);
}

TEST_F(RestartPolicyTest, AnAgentsOwnLastWordsAreAVerdict) {
  Launch();
  Print(recorded::kOldConnected);
  const Decision decision = Print(
      "SEVERE: Reader thread killed by OutOfMemoryError\n"
      "java.lang.OutOfMemoryError: unable to create native thread: possibly out of memory or "
      "process/resource limits reached\n");
  EXPECT_EQ(decision.kind, Decision::kRestart);
  EXPECT_THAT(decision.message, HasSubstr("Reader thread killed by OutOfMemoryError"));
  EXPECT_EQ(RestartReasonName(decision.reason), "gave_up");
}

TEST_F(RestartPolicyTest, AnAgedJvmIsReplacedWithoutCost) {
  RestartPolicy policy("linux-1", {.attempts = 0});
  const Decision aged = policy.OnAged("24 hours old");
  EXPECT_EQ(aged.kind, Decision::kRestart);
  EXPECT_FALSE(aged.counted);
  const Decision exit = policy.OnExit(Facts(Exited(143), pb::PHASE_CONNECTED), now_);
  EXPECT_EQ(exit.kind, Decision::kRelaunch);
  EXPECT_EQ(exit.delay, seconds(0));
  EXPECT_EQ(RestartReasonName(exit.reason), "aged");
  EXPECT_EQ(policy.restarts(), 0);
}

TEST_F(RestartPolicyTest, AOneShotAgentIsDoneWhenItsChannelHasEnded) {
  const ExitFacts gone = Facts(Exited(0), pb::PHASE_TERMINATED);
  for (const bool by_itself : {true, false}) {
    RestartPolicy policy("linux-1", {}, /*one_shot=*/true);
    const Decision done = by_itself ? policy.OnExit(gone, now_) : policy.OnDone();
    EXPECT_EQ(done.kind, Decision::kEnd);
    EXPECT_EQ(done.exit_code, 0);
    EXPECT_EQ(done.message, "");
  }
  EXPECT_EQ(RestartPolicy("linux-1").OnExit(gone, now_).kind, Decision::kRelaunch);
}

TEST_F(RestartPolicyTest, AOneShotAgentWhoseNodeIsDeletedIsDone) {
  RestartPolicy policy("linux-1", {}, /*one_shot=*/true);
  PhaseChange change;
  change.phase = pb::PHASE_CONNECTED;
  policy.OnPhase(change, now_);
  change.phase = pb::PHASE_REFUSED;
  change.refusal = Refusal::kUnknownName;
  const Decision done = policy.OnPhase(change, now_);
  EXPECT_EQ(done.kind, Decision::kEnd);
  EXPECT_EQ(done.exit_code, 0);
}

// A JVM that dies amid its build is restarted as any other.
TEST_F(RestartPolicyTest, AOneShotAgentThatDiesIsRestarted) {
  RestartPolicy policy("linux-1", {}, /*one_shot=*/true);
  EXPECT_EQ(policy.OnExit(Facts(SIGKILL, pb::PHASE_CONNECTED), now_).kind, Decision::kRelaunch);
}

}  // namespace
}  // namespace jenkins_agent
