#include "driver/nomad/version.h"

#include <gtest/gtest.h>

namespace jenkins_agent::nomad {
namespace {

struct Case {
  const char* version;
  const char* constraint;
  bool meets;
};

// What hashicorp/go-version answers.
TEST(Version, IsComparedAsNomadDoes) {
  const Case cases[] = {
      {"17.0.15", ">= 17", true},
      {"17.0.15", ">= 25", false},
      {"17.0.15", ">= 11, < 17", false},
      {"17.0.15", ">= 11, < 18", true},
      {"1.2.3", "~> 1.2", true},
      {"1.3.0", "~> 1.2", true},
      {"2.0.0", "~> 1.2", false},
      {"1.2.9", "~> 1.2.3", true},
      {"1.3.0", "~> 1.2.3", false},
      {"1.2", "= 1.2.0", true},
      {"1.2.1", "1.2.1", true},
      {"1.2.1", "!= 1.2.1", false},
      {"v6.1.0", ">= 6.1", true},
      {"6.18.0", "> 6.2", true},
      // A version before a release is left out unless the constraint names one.
      {"2.0.6-dev", ">= 1.6.0", false},
      {"2.0.6-dev", ">= 2.0.6-beta", true},
      {"2.0.6-dev", "< 2.0.6", false},
      {"1.0.0-beta.2", "> 1.0.0-beta.1", true},
      {"1.0.0-beta.10", "> 1.0.0-beta.2", true},
      {"1.0.0", "> 1.0.0-beta", true},
      {"debian", ">= 1", false},
      {"1.0", "about 1", false},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(VersionMeets(c.version, c.constraint, VersionRules::kVersion), c.meets)
        << c.version << " against " << c.constraint;
  }
}

TEST(Version, SemverTakesVersionsBeforeARelease) {
  EXPECT_TRUE(VersionMeets("2.0.6-dev", ">= 1.6.0", VersionRules::kSemver));
  EXPECT_TRUE(VersionMeets("2.0.6-dev", "< 2.0.6", VersionRules::kSemver));
  EXPECT_FALSE(VersionMeets("1.2.3", "~> 1.2", VersionRules::kSemver));
}

}  // namespace
}  // namespace jenkins_agent::nomad
