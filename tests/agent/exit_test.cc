#include "driver/agent/exit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include "tests/agent/recorded.h"

namespace jenkins_agent {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr int Exited(int code) { return code << 8; }

ExitFacts FactsAfter(const char* output, int wait_status, int stream = 2) {
  PhaseTracker tracker;
  tracker.OnLaunch();
  tracker.Feed(stream, output);
  tracker.Finish();
  return MakeExitFacts(tracker, wait_status);
}

struct Case {
  const char* output;
  int wait_status;
  ExitCause want;
  const char* text;
};

TEST(ExitTest, ClassifiesByLastWordsNotByCode) {
  const Case cases[] = {
      {recorded::kOldUsage, Exited(0), ExitCause::kUsageError,
       "the agent did not accept its arguments: \"-foo\" is not a valid option"},
      {recorded::kOldOnJava25, Exited(1), ExitCause::kJvmError, "needs a JDK older than 24"},
      {"Error: LinkageError occurred while loading main class hudson.remoting.Launcher\n"
       "\tjava.lang.UnsupportedClassVersionError: hudson/remoting/Launcher has been compiled by a "
       "more recent version of the Java Runtime\n",
       Exited(1), ExitCause::kJvmError, "it needs a newer JDK"},
      {"Unrecognized VM option 'Nope'\nError: Could not create the Java Virtual Machine.\n",
       Exited(1), ExitCause::kJvmError,
       "the JDK cannot run agent 'linux-1': Unrecognized VM option 'Nope'"},
      {"Error: Unable to access jarfile /x.jar\n", Exited(1), ExitCause::kJvmError, "/x.jar"},
      {recorded::kOldWrongSecret, Exited(255), ExitCause::kRefused,
       "the controller refused agent 'linux-1': wrong secret (Unauthorized access)"},
      {recorded::kOldUnknownName, Exited(255), ExitCause::kRefused, "unknown agent name"},
      {recorded::kOldNameInUse, Exited(255), ExitCause::kRefused, "name in use"},
      {recorded::kOldRefusedConnection, Exited(255), ExitCause::kUnreachable, "Connection refused"},
      {recorded::kOldStarting503, Exited(255), ExitCause::kUnreachable, "503"},
      {recorded::kOldPortOff404, Exited(255), ExitCause::kUnreachable, "404"},
      {recorded::kOldConnected, SIGKILL, ExitCause::kOther,
       "the agent's JVM was killed by signal 9 (Killed) while connected"},
      {recorded::kOldRefusedConnection, SIGKILL, ExitCause::kOther, "killed by signal 9"},
      {recorded::kOldConnected, Exited(143), ExitCause::kOther, "exited with code 143"},
      {"", Exited(7), ExitCause::kOther, "exited with code 7 while starting"},
  };
  for (const Case& c : cases) {
    const ExitFacts facts = FactsAfter(c.output, c.wait_status);
    EXPECT_EQ(ClassifyExit(facts), c.want) << c.output;
    EXPECT_THAT(DescribeExit(facts, "linux-1"), HasSubstr(c.text));
  }
}

TEST(ExitTest, JvmsOwnErrorsComeOnStdoutToo) {
  const ExitFacts facts = FactsAfter(
      "Error occurred during initialization of VM\nToo small maximum heap\n", Exited(1), 1);
  EXPECT_EQ(ClassifyExit(facts), ExitCause::kJvmError);
}

TEST(ExitTest, AnExhaustedHeapSaysWhatToRaise) {
  const char* words = "Terminating due to java.lang.OutOfMemoryError: Java heap space\n";
  EXPECT_THAT(DescribeExit(FactsAfter(words, Exited(3), 1), "linux-1"),
              AllOf(HasSubstr("has used up its own memory (Java heap space) while "),
                    HasSubstr("raise -Xmx in jvm_options")));
  EXPECT_THAT(DescribeExit(FactsAfter("", Exited(3), 1), "linux-1"), HasSubstr("with code 3"));
}

TEST(ExitTest, MessageNeverQuotesArguments) {
  const ExitFacts facts = FactsAfter(recorded::kOldUsageQuotesArguments, Exited(0));
  EXPECT_EQ(ClassifyExit(facts), ExitCause::kUsageError);
  EXPECT_THAT(DescribeExit(facts, "linux-1"), Not(HasSubstr("0123456789abcdef")));
}

TEST(ExitTest, ExitCodeCountsSignalsFrom128) {
  EXPECT_EQ(ExitCodeOf(Exited(255)), 255);
  EXPECT_EQ(ExitCodeOf(SIGTERM), 143);
}

}  // namespace
}  // namespace jenkins_agent
