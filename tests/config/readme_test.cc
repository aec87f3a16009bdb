#include "driver/config/readme.h"

#include "driver/base/file.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using ::testing::HasSubstr;

// When this fails: put the output of build/test/driver/config/option_reference into README.md.
TEST(Readme, ShowsTheOptionTablesAsTheyAre) {
  ASSERT_OK_AND_ASSIGN(const std::string readme, ReadFile(README_FILE));
  EXPECT_THAT(readme, HasSubstr(TaskOptionTable()));
  EXPECT_THAT(readme, HasSubstr(PluginOptionTable()));
}

}  // namespace
}  // namespace jenkins_agent
