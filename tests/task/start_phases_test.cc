#include "driver/task/start_phases.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "driver/task/measure.h"

namespace jenkins_agent {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;

pb::Timings Stood() {
  pb::Timings timings;
  timings.set_ordered_ms(0.9);
  timings.set_forked_ms(1.2);
  timings.set_cgroup_ms(1.8);
  timings.set_cloned_ms(2.0);
  timings.set_sandbox_ms(2.8);
  return timings;
}

TEST(StartPhases, OfAProgramEndWithItsLaunch) {
  pb::Timings timings = Stood();
  timings.set_launched_ms(3.1);
  const std::vector<StartPhase> phases = PhasesOf(timings);
  EXPECT_EQ(StartMessage(phases),
            "started in 3.1 ms: plan 0.9, spawn 0.3, cgroups 0.6, root 1.0, launch 0.3");
  EXPECT_THAT(StartDetails(phases),
              ElementsAre(Pair("cgroups_ms", "0.6"), Pair("launch_ms", "0.3"),
                          Pair("plan_ms", "0.9"), Pair("root_ms", "1.0"), Pair("spawn_ms", "0.3")));
}

TEST(StartPhases, OfAnAgentEndWithItsSandbox) {
  EXPECT_EQ(StartMessage(PhasesOf(Stood())),
            "sandbox ready in 2.8 ms: plan 0.9, spawn 0.3, cgroups 0.6, root 1.0");
}

TEST(AgentPhaseLabel, IsOneOfTheTable) {
  pb::TaskStatus status;
  EXPECT_EQ(AgentPhaseLabel(status), "") << "no agent";
  status.set_agent_name("linux-1");
  EXPECT_EQ(AgentPhaseLabel(status), "starting");
  const std::vector<std::string>& known = SeriesOf(Metric::kAgents).values;
  for (int state = pb::RunState_MIN; state <= pb::RunState_MAX; ++state) {
    for (int phase = pb::AgentPhase_MIN; phase <= pb::AgentPhase_MAX; ++phase) {
      status.set_state(static_cast<pb::RunState>(state));
      status.set_phase(static_cast<pb::AgentPhase>(phase));
      EXPECT_THAT(known, Contains(AgentPhaseLabel(status)));
    }
  }
}

TEST(StartPhases, OfASupervisorThatKnowsNoneAreNotMadeUp) {
  pb::Timings first_release;
  first_release.set_forked_ms(0.25);
  first_release.set_sandbox_ms(2.5);
  EXPECT_THAT(PhasesOf(first_release), IsEmpty());
  EXPECT_EQ(StartMessage({}), "");
}

}  // namespace
}  // namespace jenkins_agent
