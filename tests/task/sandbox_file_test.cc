#include "driver/task/sandbox_file.h"

#include <sys/stat.h>

#include <filesystem>

#include "driver/base/file.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace jenkins_agent {
namespace {

using ::testing::HasSubstr;

class SandboxFile : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK(MakeDirs(dir_.path() + "/agent/secrets"));
    ASSERT_OK(MakeDirs(dir_.path() + "/agent/local"));
    ASSERT_OK(WriteFileAtomic(dir_.path() + "/agent/secrets/token", "s3cret\n"));
    ASSERT_OK(WriteFileAtomic(dir_.path() + "/outside", "not yours"));
  }
  absl::StatusOr<std::string> Read(const std::string& path) {
    return ReadSandboxFile(path, dir_.path(), "agent");
  }
  const TempDir dir_;
};

TEST_F(SandboxFile, ReadsWhatTheJobSees) { EXPECT_EQ(Read("/secrets/token").value(), "s3cret\n"); }

TEST_F(SandboxFile, LinksDoNotLeaveTheDirectory) {
  std::filesystem::create_symlink(dir_.path() + "/outside", dir_.path() + "/agent/local/absolute");
  std::filesystem::create_symlink("../../outside", dir_.path() + "/agent/local/relative");
  EXPECT_THAT(Read("/local/absolute"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("absolute")));
  EXPECT_THAT(Read("/local/relative"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("relative")));
  EXPECT_THAT(Read("/local/../../outside"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("outside")));
}

TEST_F(SandboxFile, RefusesOtherPlacesFifosAndLargeFiles) {
  EXPECT_THAT(Read("/etc/shadow"), StatusIs(absl::StatusCode::kInvalidArgument,
                                            HasSubstr("not in /secrets, /local or /alloc")));
  ASSERT_EQ(::mkfifo((dir_.path() + "/agent/local/fifo").c_str(), 0600), 0);
  EXPECT_THAT(Read("/local/fifo"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("regular file")));
  ASSERT_OK(
      WriteFileAtomic(dir_.path() + "/agent/local/big", std::string(kMaxSandboxFile + 1, 'x')));
  EXPECT_THAT(Read("/local/big"),
              StatusIs(absl::StatusCode::kOutOfRange, HasSubstr("longer than")));
}

}  // namespace
}  // namespace jenkins_agent
