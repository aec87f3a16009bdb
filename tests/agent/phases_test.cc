#include "driver/agent/phases.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/agent/recorded.h"

namespace jenkins_agent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::vector<pb::AgentPhase> Phases(const std::vector<PhaseChange>& changes) {
  std::vector<pb::AgentPhase> phases;
  for (const PhaseChange& change : changes) phases.push_back(change.phase);
  return phases;
}

PhaseTracker Launched() {
  PhaseTracker tracker;
  tracker.OnLaunch();
  return tracker;
}

TEST(PhaseTrackerTest, FollowsAnOldAgentToConnected) {
  PhaseTracker tracker = Launched();
  tracker.Feed(2, recorded::kSecurityManagerWarning);
  EXPECT_THAT(Phases(tracker.Feed(2, recorded::kOldConnected)),
              ElementsAre(pb::PHASE_LOCATING, pb::PHASE_HANDSHAKING, pb::PHASE_HANDSHAKING,
                          pb::PHASE_CONNECTED));
  EXPECT_TRUE(tracker.ever_connected());
  EXPECT_FALSE(tracker.usage_error());
  EXPECT_THAT(tracker.last_error(), IsEmpty());
}

TEST(PhaseTrackerTest, FollowsACurrentAgentToConnected) {
  PhaseTracker tracker = Launched();
  EXPECT_THAT(Phases(tracker.Feed(2, recorded::kCurrentConnected)),
              ElementsAre(pb::PHASE_LOCATING, pb::PHASE_HANDSHAKING, pb::PHASE_HANDSHAKING,
                          pb::PHASE_CONNECTED));
}

TEST(PhaseTrackerTest, ReadsTheOneLineFormatAsTheTwoLineFormat) {
  for (const char* output :
       {recorded::kOldRefusedConnection, recorded::kOldOneLineRefusedConnection}) {
    PhaseTracker tracker = Launched();
    const std::vector<PhaseChange> changes = tracker.Feed(2, output);
    EXPECT_THAT(Phases(changes), ElementsAre(pb::PHASE_LOCATING, pb::PHASE_LOCATING));
    EXPECT_EQ(changes.back().unreachable, Unreachable::kNoAnswer);
    EXPECT_EQ(changes.back().detail,
              "Failed to connect to http://127.0.0.1:9/tcpSlaveAgentListener/: Connection refused");
    EXPECT_EQ(tracker.last_error(), changes.back().detail);
  }
}

struct UnreachableCase {
  const char* output;
  Unreachable want;
};

TEST(PhaseTrackerTest, TellsWhyTheControllerIsUnreachable) {
  const UnreachableCase cases[] = {
      {recorded::kOldRefusedConnection, Unreachable::kNoAnswer},
      {recorded::kOldStarting503, Unreachable::kStarting},
      {recorded::kOldPortOff404, Unreachable::kNotFound},
      {recorded::kCurrentUnreachable, Unreachable::kNoAnswer},
      {"INFO: Controller isn't ready to talk to us on http://c/. Will try again: response "
       "code=503\n",
       Unreachable::kStarting},
      {"INFO: http://c/login is not ready: 500\n", Unreachable::kOther},
      {"java.io.IOException: http://c/ is not Jenkins\n", Unreachable::kNotFound},
      {"java.io.IOException: Agent version 3176.v207 or newer is required.\n",
       Unreachable::kTooOld},
      {"INFO: Failed to connect: Connection failed.\n", Unreachable::kNoAnswer},
      {"INFO: Failed to connect: 503 Service Unavailable\n", Unreachable::kStarting},
      {"java.io.IOException: http://c/ provided port:50000 is not reachable on host c\n",
       Unreachable::kNoAnswer},
  };
  for (const UnreachableCase& c : cases) {
    PhaseTracker tracker = Launched();
    tracker.Feed(2, c.output);
    EXPECT_EQ(tracker.unreachable(), c.want) << c.output;
    EXPECT_EQ(tracker.phase(), pb::PHASE_LOCATING) << c.output;
  }
}

// One such byte in an event or an exit record would make it unreadable.
TEST(PhaseTrackerTest, TextOfAnyEncodingBecomesUtf8) {
  PhaseTracker tracker = Launched();
  tracker.Feed(2, "SEVERE: The server rejected the connection: caf\xE9\n");
  EXPECT_EQ(tracker.detail(), "caf\xEF\xBF\xBD");
}

struct RefusalCase {
  const char* output;
  Refusal want;
  const char* detail;
};

TEST(PhaseTrackerTest, TellsWhyTheControllerRefused) {
  const RefusalCase cases[] = {
      {recorded::kOldWrongSecret, Refusal::kWrongSecret, "Unauthorized access"},
      {recorded::kOldUnknownName, Refusal::kUnknownName, "No such slave: linux-1"},
      {recorded::kOldNameInUse, Refusal::kNameInUse,
       "linux-1 is already connected to this master. Rejecting this connection."},
      {recorded::kCurrentWrongSecret, Refusal::kWrongSecret, "Authorization failure"},
      {recorded::kCurrentUnknownName, Refusal::kUnknownName, "Unknown client name: linux-1"},
      {recorded::kCurrentNameInUse, Refusal::kNameInUse,
       "linux-1 is already connected to this controller. Rejecting this connection."},
      {"WARNING: [x] Local headers permanently rejected by remote: linux-1 is not an inbound "
       "agent\n",
       Refusal::kOther, "linux-1 is not an inbound agent"},
      {"INFO: Failed to connect: 403 Forbidden\n", Refusal::kWrongSecret, "403 Forbidden"},
      {"INFO: Failed to connect: 400 Bad Request\n", Refusal::kOther,
       "400 Bad Request: unknown name, name in use, or a proxy in between that passes no WebSocket "
       "on"},
      {recorded::kCurrentWebSocketRefused, Refusal::kOther,
       "Handshake error: unknown name, name in use, or a proxy in between that passes no WebSocket "
       "on"},
  };
  for (const RefusalCase& c : cases) {
    PhaseTracker tracker = Launched();
    const std::vector<PhaseChange> changes = tracker.Feed(2, c.output);
    ASSERT_FALSE(changes.empty()) << c.output;
    EXPECT_EQ(changes.back().phase, pb::PHASE_REFUSED);
    EXPECT_EQ(changes.back().refusal, c.want) << c.output;
    EXPECT_EQ(changes.back().detail, c.detail);
    EXPECT_EQ(tracker.refusal(), c.want);
  }
}

TEST(PhaseTrackerTest, ADemandForANewerAgentIsTold) {
  PhaseTracker tracker = Launched();
  tracker.Feed(2, "java.io.IOException: Agent version 3176.v207 or newer is required.\n");
  EXPECT_TRUE(DemandsNewerAgent(tracker.detail())) << tracker.detail();
  EXPECT_FALSE(DemandsNewerAgent("Using Remoting version: 3176.v207"));
}

TEST(PhaseTrackerTest, CountsEachRefusedAttemptOnce) {
  PhaseTracker tracker = Launched();
  int refused = 0;
  for (int attempt = 0; attempt < 3; ++attempt) {
    for (const PhaseChange& change : tracker.Feed(
             2, absl::StrCat(recorded::kCurrentWrongSecret,
                             "INFO: The server rejected the connection: None of the protocols "
                             "were accepted\n"))) {
      refused += change.phase == pb::PHASE_REFUSED;
    }
  }
  EXPECT_EQ(refused, 3);
}

TEST(PhaseTrackerTest, BytesMayBeCutAnywhere) {
  PhaseTracker tracker = Launched();
  std::vector<PhaseChange> changes;
  for (const char c : absl::string_view(recorded::kOldConnected)) {
    for (PhaseChange& change : tracker.Feed(2, absl::string_view(&c, 1))) {
      changes.push_back(std::move(change));
    }
  }
  EXPECT_EQ(changes.size(), 4u);
  EXPECT_EQ(tracker.phase(), pb::PHASE_CONNECTED);
}

TEST(PhaseTrackerTest, LastLineNeedsNoNewline) {
  PhaseTracker tracker = Launched();
  EXPECT_THAT(tracker.Feed(2, "INFO: Terminated"), IsEmpty());
  EXPECT_THAT(Phases(tracker.Finish()), ElementsAre(pb::PHASE_TERMINATED));
}

TEST(PhaseTrackerTest, EndlessLineIsBoundedAndTheNextOneRead) {
  PhaseTracker tracker = Launched();
  for (int i = 0; i < 100; ++i) tracker.Feed(2, std::string(10000, 'x'));
  EXPECT_THAT(Phases(tracker.Feed(2, "INFO: Connected\nINFO: Connected\n")),
              ElementsAre(pb::PHASE_CONNECTED));
  EXPECT_LE(tracker.first_lines().front().size(), kMaxQuotedBytes);
}

TEST(PhaseTrackerTest, OnlyWholeMessagesOnStderrCount) {
  PhaseTracker tracker = Launched();
  EXPECT_THAT(tracker.Feed(2, "INFO: Connected to the moon\nConnected\nNOTE: Connected\n"),
              IsEmpty());
  EXPECT_THAT(tracker.Feed(1, "INFO: Connected\n"), IsEmpty());
}

TEST(PhaseTrackerTest, ReconnectsInTheSameJvm) {
  PhaseTracker tracker = Launched();
  tracker.Feed(2, recorded::kOldConnected);
  tracker.Feed(2, "SEVERE: I/O error in channel channel\n");
  EXPECT_EQ(tracker.last_error(), "I/O error in channel channel");
  EXPECT_THAT(Phases(tracker.Feed(2,
                                  "INFO: Terminated\n"
                                  "INFO: Failed to connect to http://c/. Will try again: "
                                  "java.net.ConnectException: Connection refused\n"
                                  "INFO: Locating server among [http://c/]\n"
                                  "INFO: Handshaking\nINFO: Connected\n")),
              ElementsAre(pb::PHASE_TERMINATED, pb::PHASE_LOCATING, pb::PHASE_HANDSHAKING,
                          pb::PHASE_CONNECTED));
  EXPECT_THAT(tracker.last_error(), IsEmpty());
}

TEST(PhaseTrackerTest, ReexecutedAgentStartsAgain) {
  PhaseTracker tracker = Launched();
  tracker.Feed(2, recorded::kCurrentConnected);
  EXPECT_THAT(Phases(tracker.Feed(2, "INFO: Setting up agent: linux-1\n")),
              ElementsAre(pb::PHASE_STARTING));
}

TEST(PhaseTrackerTest, RelaunchForgetsAllButThatItOnceConnected) {
  PhaseTracker tracker = Launched();
  tracker.Feed(2, recorded::kOldConnected);
  tracker.Feed(2, "SEVERE: I/O error\npartial");
  tracker.OnLaunch();
  EXPECT_EQ(tracker.phase(), pb::PHASE_STARTING);
  EXPECT_TRUE(tracker.ever_connected());
  EXPECT_FALSE(tracker.connected_in_this_launch());
  EXPECT_THAT(tracker.last_error(), IsEmpty());
  EXPECT_THAT(tracker.Finish(), IsEmpty());
}

TEST(PhaseTrackerTest, KeepsWhatTheJvmSaysOnStdout) {
  PhaseTracker tracker = Launched();
  tracker.Feed(2, recorded::kOldConnected);
  tracker.Feed(1, "Terminating due to java.lang.OutOfMemoryError: Java heap space\n");
  EXPECT_THAT(tracker.last_error(), HasSubstr("OutOfMemoryError"));
  EXPECT_EQ(tracker.phase(), pb::PHASE_CONNECTED) << "it ends by itself and is not to be ended";
}

TEST(PhaseTrackerTest, FindsUsageErrorsWithoutTheArguments) {
  PhaseTracker tracker = Launched();
  tracker.Feed(2, recorded::kSecurityManagerWarning);
  tracker.Feed(2, recorded::kOldUsage);
  EXPECT_TRUE(tracker.usage_error());
  EXPECT_EQ(tracker.first_lines().front(), "\"-foo\" is not a valid option");

  tracker.OnLaunch();
  tracker.Feed(2, recorded::kOldUsageQuotesArguments);
  EXPECT_EQ(tracker.first_lines().front(), "two arguments required");
}

}  // namespace
}  // namespace jenkins_agent
