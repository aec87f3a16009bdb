#include "driver/jvm/class_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "driver/base/file.h"
#include "driver/jvm/options.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace jenkins_agent {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

pb::AgentSpec AgentWith(const std::vector<std::string>& user_options, uint32_t feature = 17) {
  pb::AgentSpec agent;
  agent.add_java_homes()->set_feature(25);
  agent.add_java_homes()->set_feature(feature);
  for (const std::string& option : DefaultJvmOptions(0, user_options)) {
    agent.add_jvm_options(option);
  }
  return agent;
}

TEST(ClassDataTest, IsSharedUnlessAnOptionOfTheUserHinders) {
  EXPECT_TRUE(CanShareClassData(AgentWith({})));
  EXPECT_TRUE(CanShareClassData(AgentWith({"-Xmx1g", "-Da=b", "-Xss1m"})));
  for (const char* option : {"-XX:+UseZGC", "-Xshare:off", "-XX:SharedArchiveFile=/local/x",
                             "-javaagent:/local/a.jar", "--patch-module=a=b"}) {
    EXPECT_FALSE(CanShareClassData(AgentWith({option}))) << option;
  }
  EXPECT_FALSE(CanShareClassData(AgentWith({}, 11))) << "it would not know the options";
}

TEST(ClassDataTest, ADumpIsOfOurOwnOptions) {
  EXPECT_THAT(ClassDataDumpOptions("/local/a.jsa"),
              Contains("-XX:ArchiveClassesAtExit=/local/a.jsa"));
  EXPECT_THAT(ClassDataDumpOptions("/local/a.jsa"), Contains("-XX:+UseSerialGC"));
}

TEST(ClassDataTest, EveryChangeOfJdkOrJarIsAnotherIdentity) {
  const TempDir dir;
  ASSERT_OK(MakeDirs(dir.path() + "/lib/server"));
  ASSERT_OK(WriteFileAtomic(dir.path() + "/release", "JAVA_VERSION=\"17.0.15\"\n"));
  ASSERT_OK(WriteFileAtomic(dir.path() + "/lib/modules", "m"));
  ASSERT_OK_AND_ASSIGN(const std::string first, ClassDataIdentity(dir.path(), "aa"));
  ASSERT_OK_AND_ASSIGN(const std::string same, ClassDataIdentity(dir.path(), "aa"));
  EXPECT_EQ(first, same);
  ASSERT_OK_AND_ASSIGN(const std::string other_jar, ClassDataIdentity(dir.path(), "bb"));
  EXPECT_NE(first, other_jar);
  // An update in place, of the same version and size.
  ASSERT_OK(WriteFileAtomic(dir.path() + "/lib/modules", "n"));
  ASSERT_OK_AND_ASSIGN(const std::string updated, ClassDataIdentity(dir.path(), "aa"));
  EXPECT_NE(first, updated);
  EXPECT_THAT(ClassDataIdentity(dir.path() + "/none", "aa"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/none/release")));
}

}  // namespace
}  // namespace jenkins_agent
