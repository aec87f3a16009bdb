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

  HealthWatch watch_{HealthLimits(), {}};
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
  double used = 0;
  for (int i = 0; i < 100; ++i) {
    ASSERT_EQ(After(seconds(10),
                    [&](HealthSample& sample) {
                      sample.unread_bytes = 10479;
                      sample.cpu_seconds = used += 0.5;
                    })
                  .kind,
              Health::kGood);
  }
}

// A JVM at rest uses some CPU: its periodic threads run on when the reader has died.
TEST_F(HealthTest, TheLittleWorkOfAJvmAtRestIsNoSignOfLife) {
  double used = 0;
  Health last;
  EXPECT_EQ(SecondsUntilWedged(
                [&](HealthSample& sample) {
                  sample.unread_bytes = 10479;
                  sample.cpu_seconds = used += 0.02;
                },
                &last),
            60);
}

TEST_F(HealthTest, WhoReadsIsInOrderHoweverMuchWaits) {
  uint64_t read = 0;
  for (int i = 0; i < 100; ++i) {
    ASSERT_EQ(After(seconds(10),
                    [&](HealthSample& sample) {
                      sample.unread_bytes = 100'000;
                      sample.read_bytes = read += 10;
                    })
                  .kind,
              Health::kGood);
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
  const auto silent_for = [](minutes time) {
    return [time](HealthSample& sample) { sample.since_data = time; };
  };
  EXPECT_EQ(After(seconds(10), silent_for(minutes(14))).kind, Health::kGood);
  EXPECT_EQ(After(seconds(10), silent_for(minutes(20))).kind, Health::kSuspect);
}

// Without pings both ends may be silent for hours. The last word is the agent's answer.
TEST_F(HealthTest, AControllerThatWasNotAskedMayBeSilent) {
  for (int i = 20; i < 1000; ++i) {
    ASSERT_EQ(After(minutes(1),
                    [i](HealthSample& sample) {
                      sample.since_data = minutes(i);
                      sample.since_sent = sample.since_data - milliseconds(100);
                    })
                  .kind,
              Health::kGood);
  }
}

TEST_F(HealthTest, AShortTroubleIsForgotten) {
  for (int i = 0; i < 20; ++i) {
    const Health bad = After(seconds(50), [](HealthSample& sample) { sample.process_state = 'T'; });
    ASSERT_EQ(bad.kind, Health::kSuspect);
    ASSERT_EQ(After(seconds(5)).kind, Health::kGood);
  }
}

// One whose own sampler was held up, or a plugin that was.
TEST_F(HealthTest, TwoLooksThatAreFarApartProveNothing) {
  EXPECT_EQ(After(seconds(10)).kind, Health::kGood);
  const auto unread = [](HealthSample& sample) { sample.unread_bytes = 10479; };
  EXPECT_EQ(After(minutes(10), unread).kind, Health::kSuspect);
  EXPECT_EQ(After(seconds(29), unread).kind, Health::kSuspect);
  EXPECT_EQ(After(seconds(1), unread).kind, Health::kWedged);
}

TEST_F(HealthTest, AControllerThatIsDownIsWaitedForWithoutLimitAndToldOnce) {
  int told = 0;
  EXPECT_EQ(After(seconds(10)).kind, Health::kGood);
  sample_.phase = pb::PHASE_LOCATING;
  sample_.phase_detail = "Connection refused";
  for (int i = 0; i < 200; ++i) {
    const Health health = After(minutes(5));
    ASSERT_EQ(health.kind, Health::kGood);
    if (health.news.empty()) continue;
    ++told;
    EXPECT_EQ(health.news,
              "agent not connected for 300 s; locating the controller: Connection refused");
  }
  EXPECT_EQ(told, 1);
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

TEST_F(HealthTest, AJvmThatNeverBeginsIsAWedge) {
  sample_.phase = pb::PHASE_STARTING;
  Health last;
  int64_t waited = 0;
  for (; waited < 1000 && last.kind != Health::kWedged; waited += 10) last = After(seconds(10));
  EXPECT_EQ(waited, 350);  // start_timeout, and wedge_timeout from the look before
  EXPECT_THAT(last.cause, HasSubstr("has not begun to look for its controller"));
}

TEST_F(HealthTest, ACrowdedTaskIsToldOnceInNumbers) {
  const auto with = [](uint64_t pids) {
    return [pids](HealthSample& sample) {
      sample.pids = pids;
      sample.threads = 1500;
    };
  };
  EXPECT_EQ(After(seconds(10), with(1637)).news, "");
  const Health crowded = After(seconds(10), with(1639));
  EXPECT_EQ(crowded.news, "1639 of 2048 processes and threads in use, the agent's JVM has 1500");
  EXPECT_TRUE(crowded.crowded);
  EXPECT_EQ(After(seconds(10), with(1700)).news, "");
  EXPECT_EQ(After(seconds(10), with(1600)).news, "");
  EXPECT_EQ(After(seconds(10), with(1700)).news, "");
  EXPECT_EQ(After(seconds(10), with(1000)).news, "");
  EXPECT_NE(After(seconds(10), with(1700)).news, "");
}

TEST_F(HealthTest, ATaskThatFillsItsMemoryIsToldOnceInNumbers) {
  const auto with = [](uint64_t mib) {
    return [mib](HealthSample& sample) {
      sample.memory_bytes = mib << 20;
      sample.memory_limit = uint64_t{1000} << 20;
    };
  };
  EXPECT_EQ(After(seconds(10), with(899)).news, "");
  EXPECT_EQ(After(seconds(10), with(900)).news, "the task uses 900 of its 1000 MiB of memory");
  EXPECT_EQ(After(seconds(10), with(950)).news, "");
  EXPECT_EQ(After(seconds(10), with(600)).news, "");
  EXPECT_EQ(After(seconds(10), with(950)).news, "");
  EXPECT_EQ(After(seconds(10), with(100)).news, "");
  EXPECT_NE(After(seconds(10), with(950)).news, "");
}

// Of max_age, by the looks of one agent.
class WornTest : public HealthTest {
 protected:
  WornTest() {
    HealthLimits limits;
    limits.max_age = minutes(60);
    limits.thread_limit = 100;
    watch_ = HealthWatch(limits, {});
    sample_.threads = sample_.pids = 30;
    sample_.since_data = seconds(5);
  }
  template <typename Change>
  Health Old(Change change) {
    return After(seconds(15), [&](HealthSample& sample) {
      sample.age = minutes(61);
      change(sample);
    });
  }
};

TEST_F(WornTest, AnIdleJvmThatIsTooOldIsReplaced) {
  EXPECT_EQ(After(seconds(15)).kind, Health::kGood);
  const Health health = Old([](HealthSample&) {});
  EXPECT_EQ(health.kind, Health::kWorn);
  EXPECT_EQ(health.cause, "the agent's JVM is idle and 61 minutes old, more than agent.max_age");
}

TEST_F(WornTest, ItsFirstLookProvesNoIdleness) {
  EXPECT_EQ(Old([](HealthSample&) {}).kind, Health::kGood);
}

TEST_F(WornTest, WhoHasSomethingToDoIsNotReplaced) {
  After(seconds(15));
  EXPECT_EQ(Old([](HealthSample& sample) { ++sample.pids; }).kind, Health::kGood);
  EXPECT_EQ(Old([](HealthSample& sample) { sample.since_data = milliseconds(999); }).kind,
            Health::kGood);
  EXPECT_EQ(Old([](HealthSample& sample) { sample.cpu_seconds = 0.2; }).kind, Health::kGood);
  EXPECT_EQ(Old([](HealthSample& sample) { sample.frozen = true; }).kind, Health::kGood);
  EXPECT_EQ(Old([](HealthSample& sample) { sample.phase = pb::PHASE_LOCATING; }).kind,
            Health::kGood);
  EXPECT_EQ(Old([](HealthSample& sample) { sample.pids = 0; }).kind, Health::kGood);  // not known
}

// What it is not is in order: that is the other kind of restart.
TEST_F(WornTest, AStoppedJvmIsSuspectHoweverOld) {
  After(seconds(15));
  EXPECT_EQ(Old([](HealthSample& sample) { sample.process_state = 'T'; }).kind, Health::kSuspect);
}

TEST_F(WornTest, AnIdleJvmWithThreadsThatItNeverReleasedIsReplaced) {
  const auto with = [](uint64_t threads) {
    return [threads](HealthSample& sample) { sample.threads = sample.pids = threads; };
  };
  EXPECT_EQ(After(seconds(15), with(30)).kind, Health::kGood);
  EXPECT_EQ(After(seconds(15), with(99)).kind, Health::kGood);
  const Health health = After(seconds(15), with(100));
  EXPECT_EQ(health.kind, Health::kWorn);
  EXPECT_EQ(
      health.cause,
      "the agent's JVM is idle and keeps 100 threads, more than health.thread_limit; it began "
      "with 30");
  EXPECT_NE(health.news, "");
}

// A limit below what an agent needs would replace it for ever.
TEST_F(WornTest, AJvmThatBeganWithThatManyIsNotReplaced) {
  const auto many = [](HealthSample& sample) { sample.threads = sample.pids = 110; };
  EXPECT_EQ(After(seconds(15), many).kind, Health::kGood);
  EXPECT_EQ(After(seconds(15), many).kind, Health::kGood);
}

TEST_F(HealthTest, AJvmThatHasUsedUpTheLimitIsAWedge) {
  Health last;
  EXPECT_EQ(SecondsUntilWedged(
                [](HealthSample& sample) {
                  sample.pids = 2040;
                  sample.threads = 2000;
                },
                &last),
            60);
  EXPECT_THAT(last.cause, HasSubstr("cannot start threads any more (2040 of 2048"));
}

TEST_F(HealthTest, BuildsThatHaveUsedUpTheLimitAreNot) {
  for (int i = 0; i < 100; ++i) {
    ASSERT_EQ(After(seconds(10),
                    [](HealthSample& sample) {
                      sample.pids = 2048;
                      sample.threads = 40;
                    })
                  .kind,
              Health::kGood);
  }
}

TEST_F(HealthTest, LooksAreRareWhileAllIsWellAndMeetTheLimitExactly) {
  After(seconds(10));
  EXPECT_EQ(watch_.NextLook(Health::kGood), seconds(15));
  const auto stopped = [](HealthSample& sample) { sample.process_state = 'T'; };
  EXPECT_EQ(watch_.NextLook(After(seconds(15), stopped).kind), seconds(5));
  EXPECT_EQ(watch_.NextLook(After(seconds(42), stopped).kind), seconds(3));
  EXPECT_EQ(After(seconds(3), stopped).kind, Health::kWedged);
}

// From the launch on, and not from the first look.
TEST_F(HealthTest, AJvmThatHangsBeforeTheFirstLookIsFoundInTimeToo) {
  const auto stopped = [](HealthSample& sample) { sample.process_state = 'T'; };
  EXPECT_EQ(After(seconds(15), stopped).kind, Health::kSuspect);
  EXPECT_EQ(After(seconds(44), stopped).kind, Health::kSuspect);
  EXPECT_EQ(After(seconds(1), stopped).kind, Health::kWedged);
}

}  // namespace
}  // namespace jenkins_agent
