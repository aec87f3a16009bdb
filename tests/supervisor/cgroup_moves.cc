#include "tests/supervisor/cgroup_moves.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "driver/base/file.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {

CgroupMoves::CgroupMoves()
    : instance_(absl::StrCat(mount_point_.path(), "/instances/jenkins-agent-", ::getpid())) {
  EXPECT_EQ(::mount("tracefs", mount_point_.path().c_str(), "tracefs", 0, nullptr), 0);
  EXPECT_EQ(::mkdir(instance_.c_str(), 0700), 0);
  Write("events/cgroup/cgroup_attach_task/enable", "1");
}

CgroupMoves::~CgroupMoves() {
  EXPECT_EQ(::rmdir(instance_.c_str()), 0);
  EXPECT_EQ(::umount2(mount_point_.path().c_str(), MNT_DETACH), 0);
}

bool CgroupMoves::Into(const std::string& dir) const {
  const auto log = ReadFile(instance_ + "/trace");
  EXPECT_OK(log);
  return absl::StrContains(
      log.value_or(""), absl::StrCat("dst_path=", absl::StripPrefix(dir, "/sys/fs/cgroup"), " "));
}

void CgroupMoves::ExpectThatAMoveIsSeen(const std::string& dir) const {
  const pid_t child = ::fork();
  if (child == 0) {
    const auto members = OpenFile(dir + "/cgroup.procs", O_WRONLY);
    ::_exit(members.ok() && WriteAll(members->get(), "0").ok() ? 0 : 1);
  }
  int wait_status = -1;
  ::waitpid(child, &wait_status, 0);
  EXPECT_EQ(wait_status, 0);
  EXPECT_TRUE(Into(dir));
}

void CgroupMoves::Write(const std::string& name, const std::string& value) const {
  ASSERT_OK_AND_ASSIGN(const Fd file, OpenFile(absl::StrCat(instance_, "/", name), O_WRONLY));
  EXPECT_OK(WriteAll(file.get(), value));
}

}  // namespace jenkins_agent
