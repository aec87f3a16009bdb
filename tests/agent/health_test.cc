#include "driver/agent/health.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace jenkins_agent {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using ::testing::HasSubstr;
using Socket = HealthSample::Socket;

class HealthTest : public ::testing::Test {
 protected:
  // An agent in order; `change` makes it a sick one.
  template <typename Change>
  Health After(milliseconds pause, Change change) {
    sample_.time += pause;
    HealthSample sample = sample_;
    change(sample);
    return watch_.Judge(sample);
  }
  Health After(milliseconds pause) {
    return After(pause, [](HealthSample&) {});
  }
  // Looks every 10 s until the verdict; -> seconds since the last sample in order.
  template <typename Change>
  int64_t SecondsUntilWedged(Change change, Health* last) {
    EXPECT_EQ(After(seconds(10)).kind, Health::kGood);
    for (int64_t waited = 10; waited <= 600; waited += 10) {
      *last = After(seconds(10), change);
      if (last->kind == Health::kWedged) return waited;
      EXPECT_EQ(last->kind, Health::kSuspect) << last->cause;
    }
    return -1;
  }

  HealthWatch watch_{HealthLimits()};
  HealthSample sample_ = [] {
    HealthSample sample;
    sample.phase = pb::PHASE_CONNECTED;
    sample.socket = Socket::kEstablished;
    sample.pids = 30;
    sample.pids_limit = 2048;
    return sample;
  }();
};

TEST_F(HealthTest, AnIdleAgentIsInOrder) {
  for (int i = 0; i < 1000; ++i) ASSERT_EQ(After(seconds(10)).kind, Health::kGood);
}

TEST_F(HealthTest, AStoppedProcessIsWedgedAlthoughItsSocketLooksFine) {
  Health last;
  EXPECT_EQ(SecondsUntilWedged([](HealthSample& sample) { sample.process_state = 'T'; }, &last),
            60);
  EXPECT_EQ(last.cause, "its process is stopped (state T), for 60 s");
}

TEST_F(HealthTest, AStoppedProcessIsWedgedInEveryPhase) {
  sample_.phase = pb::PHASE_LOCATING;
  Health last;
  EXPECT_EQ(SecondsUntilWedged([](HealthSample& sample) { sample.process_state = 't'; }, &last),
            60);
}

TEST_F(HealthTest, AFrozenTaskIsNotJudged) {
  for (int i = 0; i < 100; ++i) {
    ASSERT_EQ(After(seconds(10),
                    [](HealthSample& sample) {
                      sample.frozen = true;
                      sample.process_state = 'T';
                    })
                  .kind,
              Health::kGood);
  }
}

TEST_F(HealthTest, UnreadBytesAndNoWorkAreAWedge) {
  Health last;
  EXPECT_EQ(SecondsUntilWedged([](HealthSample& sample) { sample.unread_bytes = 10479; }, &last),
            60);
  EXPECT_THAT(last.cause, HasSubstr("does not read from the controller (10479 bytes unread)"));
}

TEST_F(HealthTest, UnreadBytesOfABusyJvmAreNot) {
  uint64_t ticks = 0;
  for (int i = 0; i < 100; ++i) {
    ASSERT_EQ(After(seconds(10),
                    [&](HealthSample& sample) {
                      sample.unread_bytes = 10479;
                      sample.cpu_ticks = ticks += 3;
                    })
                  .kind,
              Health::kGood);
  }
}

TEST_F(HealthTest, AQueueThatShrinksIsRead) {
  uint32_t unread = 100'000;
  for (int i = 0; i < 50; ++i) {
    const Health health =
        After(seconds(10), [&](HealthSample& sample) { sample.unread_bytes = unread -= 1000; });
    ASSERT_NE(health.kind, Health::kWedged);
  }
}

TEST_F(HealthTest, AConnectionThatTheControllerClosedIsAWedge) {
  Health last;
  EXPECT_EQ(
      SecondsUntilWedged([](HealthSample& sample) { sample.socket = Socket::kClosing; }, &last),
      60);
}

TEST_F(HealthTest, ConnectedWithoutAConnectionIsAWedge) {
  Health last;
  EXPECT_EQ(
      SecondsUntilWedged([](HealthSample& sample) { sample.socket = Socket::kMissing; }, &last),
      60);
}

TEST_F(HealthTest, ASilentControllerIsAWedgeOnlyBeyondEveryPing) {
  EXPECT_EQ(After(seconds(10), [](HealthSample& sample) { sample.since_data = minutes(14); }).kind,
            Health::kGood);
  EXPECT_EQ(After(seconds(10), [](HealthSample& sample) { sample.since_data = minutes(20); }).kind,
            Health::kSuspect);
}

TEST_F(HealthTest, AShortTroubleIsForgotten) {
  for (int i = 0; i < 20; ++i) {
    const Health bad = After(seconds(50), [](HealthSample& sample) { sample.process_state = 'T'; });
    ASSERT_EQ(bad.kind, Health::kSuspect);
    ASSERT_EQ(After(seconds(5)).kind, Health::kGood);
  }
}

TEST_F(HealthTest, AControllerThatIsDownIsWaitedForWithoutLimit) {
  sample_.phase = pb::PHASE_LOCATING;
  sample_.socket = Socket::kMissing;
  for (int i = 0; i < 200; ++i) {
    ASSERT_EQ(
        After(minutes(5), [](HealthSample& sample) { sample.controller_answers = false; }).kind,
        Health::kGood);
  }
}

TEST_F(HealthTest, AControllerThatAnswersShouldHaveItsAgentBack) {
  sample_.phase = pb::PHASE_TERMINATED;
  sample_.controller_answers = true;
  EXPECT_EQ(After(seconds(10)).kind, Health::kGood);
  EXPECT_EQ(After(minutes(9)).kind, Health::kGood);
  const Health health = After(minutes(1));
  EXPECT_EQ(health.kind, Health::kWedged);
  EXPECT_THAT(health.cause, HasSubstr("although the controller has answered for 600 s"));
}

TEST_F(HealthTest, TheGraceBeginsAgainWhenTheControllerWasAway) {
  sample_.phase = pb::PHASE_TERMINATED;
  sample_.controller_answers = true;
  for (int i = 0; i < 200; ++i) {
    ASSERT_EQ(After(minutes(9)).kind, Health::kGood);
    ASSERT_EQ(
        After(seconds(10), [](HealthSample& sample) { sample.controller_answers = false; }).kind,
        Health::kGood);
  }
}

TEST_F(HealthTest, ACrowdedTaskIsToldInNumbers) {
  EXPECT_EQ(After(seconds(10), [](HealthSample& sample) { sample.pids = 1638; }).kind,
            Health::kGood);
  const Health health = After(seconds(10), [](HealthSample& sample) { sample.pids = 1639; });
  EXPECT_EQ(health.kind, Health::kCrowded);
  EXPECT_EQ(health.cause, "1639 of 2048 processes and threads in use");
}

TEST_F(HealthTest, AnotherJvmStartsAfresh) {
  After(seconds(10));
  After(seconds(50), [](HealthSample& sample) { sample.process_state = 'T'; });
  watch_.OnLaunch();
  EXPECT_EQ(After(seconds(20), [](HealthSample& sample) { sample.process_state = 'T'; }).kind,
            Health::kSuspect);
}

}  // namespace
}  // namespace jenkins_agent
