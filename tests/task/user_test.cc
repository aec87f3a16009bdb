#include "driver/task/user.h"

#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using ::testing::HasSubstr;

TEST(User, EmptyMeansNobody) {
  ASSERT_OK_AND_ASSIGN(const pb::UserSpec user, ResolveUser("", /*allow_root=*/false));
  EXPECT_EQ(user.name(), "nobody");
  EXPECT_EQ(user.uid(), 65534u);
}

TEST(User, NomadsPoolNeedsNoAccount) {
  ASSERT_OK_AND_ASSIGN(const pb::UserSpec user, ResolveUser("nomad-80001", false));
  EXPECT_EQ(user.uid(), 80001u);
  EXPECT_EQ(user.gid(), 80001u);
  EXPECT_EQ(user.groups_size(), 0);
}

TEST(User, NumbersAndGroups) {
  ASSERT_OK_AND_ASSIGN(const pb::UserSpec user, ResolveUser("12345:daemon", false));
  EXPECT_EQ(user.uid(), 12345u);
  EXPECT_EQ(user.gid(), 1u);
}

TEST(User, RootNeedsTheOperatorsWordHoweverItIsSpelt) {
  for (const char* name : {"root", "0", "00", "nobody:0", "nobody:root", "nomad-0"}) {
    EXPECT_THAT(ResolveUser(name, false),
                StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("allow_root")))
        << name;
  }
  EXPECT_OK(ResolveUser("root", true));
}

TEST(User, UnknownNamesAreErrors) {
  EXPECT_THAT(
      ResolveUser("no-such-user", false),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("'no-such-user' is not known")));
  EXPECT_THAT(
      ResolveUser("nobody:no-such-group", false),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("'no-such-group' is not known")));
}

}  // namespace
}  // namespace jenkins_agent
