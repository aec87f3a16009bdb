#include "driver/sandbox/accounts.h"

#include <gtest/gtest.h>

namespace jenkins_agent {
namespace {

constexpr char kPasswd[] =
    "root:x:0:0:root:/root:/bin/bash\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";

TEST(Accounts, AMissingUserIsAppended) {
  EXPECT_EQ(PasswdWithUser(kPasswd, "nomad-80001", 80001, 80002, "/local"),
            std::string(kPasswd) + "nomad-80001:x:80001:80002::/local:/bin/sh\n");
}

TEST(Accounts, AKnownUserGetsTheSandboxHome) {
  EXPECT_EQ(PasswdWithUser(kPasswd, "nobody", 65534, 65534, "/local"),
            "root:x:0:0:root:/root:/bin/bash\n"
            "nobody:x:65534:65534:nobody:/local:/usr/sbin/nologin\n");
}

TEST(Accounts, ATakenOrMissingNameIsReplaced) {
  EXPECT_EQ(PasswdWithUser("a:x:1:1::/:/bin/sh", "a", 7, 8, "/h"),
            "a:x:1:1::/:/bin/sh\ntask-7:x:7:8::/h:/bin/sh\n");
  EXPECT_EQ(PasswdWithUser("", "", 7, 8, "/h"), "task-7:x:7:8::/h:/bin/sh\n");
}

TEST(Accounts, GroupsAreAppendedOnce) {
  EXPECT_EQ(GroupWithGroup("root:x:0:", "ci", 5), "root:x:0:\nci:x:5:\n");
  EXPECT_EQ(GroupWithGroup("root:x:0:\ntty:x:5:a,b\n", "ci", 5), "root:x:0:\ntty:x:5:a,b\n");
}

TEST(Accounts, OddLinesSurvive) {
  EXPECT_EQ(PasswdWithUser("+::::::\nx\n", "u", 7, 8, "/h"), "+::::::\nx\nu:x:7:8::/h:/bin/sh\n");
}

}  // namespace
}  // namespace jenkins_agent
