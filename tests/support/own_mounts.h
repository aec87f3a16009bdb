// A test program that compares the host's mounts before and after runs in a mount namespace of its
// own: what other tests mount meanwhile is not seen there, nor by them what this one mounts.
//
//   const auto* const kOwnMounts = testing::AddGlobalTestEnvironment(new OwnMounts);
#pragma once

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

namespace jenkins_agent {

class OwnMounts : public ::testing::Environment {
 public:
  void SetUp() override {
    if (::geteuid() != 0) return;  // the tests say what they need
    ASSERT_EQ(::unshare(CLONE_NEWNS), 0);
    ASSERT_EQ(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
  }
};

}  // namespace jenkins_agent
