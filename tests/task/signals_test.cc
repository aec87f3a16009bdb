#include "driver/task/signals.h"

#include <signal.h>

#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using ::testing::HasSubstr;

TEST(Signals, AcceptsNamesAndNumbers) {
  EXPECT_EQ(ParseSignal("SIGTERM").value(), SIGTERM);
  EXPECT_EQ(ParseSignal("quit").value(), SIGQUIT);
  EXPECT_EQ(ParseSignal("USR1").value(), SIGUSR1);
  EXPECT_EQ(ParseSignal("9").value(), SIGKILL);
  EXPECT_EQ(ParseSignal("SIGNULL").value(), 0);
}

TEST(Signals, RefusesTheUnknownAndSaysWhatIsPossible) {
  for (const char* name : {"SIGNOPE", "", "-1", "65", "SIG"}) {
    EXPECT_THAT(ParseSignal(name), StatusIs(absl::StatusCode::kInvalidArgument,
                                            HasSubstr("use a name such as SIGTERM")))
        << name;
  }
}

}  // namespace
}  // namespace jenkins_agent
