// What registries ask for, and what docker's config.json answers.
#include <cstdlib>

#include "driver/image/challenge.h"
#include "driver/image/credentials.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

TEST(Challenge, ParametersAreWordsOrQuoted) {
  const auto challenges = ParseChallenges(
      R"(Bearer realm="https://auth.example/token?a=b,c",Service=x , scope="repository:a/b:pull \"q\"")");
  ASSERT_THAT(challenges, SizeIs(1));
  EXPECT_EQ(challenges[0].scheme, "bearer");
  EXPECT_EQ(challenges[0].parameters.at("realm"), "https://auth.example/token?a=b,c");
  EXPECT_EQ(challenges[0].parameters.at("service"), "x");
  EXPECT_EQ(challenges[0].parameters.at("scope"), "repository:a/b:pull \"q\"");
}

TEST(Challenge, OneHeaderMayHoldSeveral) {
  const auto challenges = ParseChallenges(R"(Negotiate, Basic realm="x", Bearer realm="y")");
  ASSERT_THAT(challenges, SizeIs(3));
  EXPECT_EQ(challenges[1].scheme, "basic");
  EXPECT_EQ(challenges[2].parameters.at("realm"), "y");
}

TEST(Challenge, WhatIsMalformedEndsTheList) {
  EXPECT_THAT(ParseChallenges(""), IsEmpty());
  EXPECT_THAT(ParseChallenges("=x"), IsEmpty());
  EXPECT_THAT(ParseChallenges("a=b"), IsEmpty());
  EXPECT_THAT(ParseChallenges("Basic realm=\"open")[0].parameters, IsEmpty());
  EXPECT_THAT(ParseChallenges(std::string(100000, ',') + std::string(50, 'a')), SizeIs(1));
}

TEST(TokenAnswer, IsReadInBothSpellingsAndMustFitAHeader) {
  EXPECT_EQ(ParseToken(R"({"token": "a"})")->lifetime_s, 60);
  EXPECT_EQ(ParseToken(R"({"access_token": "b", "expires_in": 300})")->value, "b");
  EXPECT_EQ(ParseToken(R"({"token": "a", "expires_in": 999999999})")->lifetime_s, 3600);
  for (const char* bad : {"{}", "[]", R"({"token": ""})", R"({"token": "a\r\nX: y"})"}) {
    EXPECT_THAT(ParseToken(bad), Not(IsOk())) << bad;
  }
}

TEST(FindCredentials, TheLongestKeyThatFitsWins) {
  const std::string config = R"({"auths": {
      "https://index.docker.io/v1/": {"auth": "aHViOnB3"},
      "r.example": {"username": "all", "password": "1"},
      "r.example/team": {"auth": "dGVhbTphOmI="},
      "r.example/teammate": {"username": "other", "password": "2"}}})";
  EXPECT_EQ(FindCredentials(config, "docker.io", "library/x")->credentials->user, "hub");
  EXPECT_EQ(FindCredentials(config, "r.example", "x")->credentials->user, "all");
  const auto team = FindCredentials(config, "r.example", "team/x");
  EXPECT_EQ(team->credentials->user, "team");
  EXPECT_EQ(team->credentials->password, "a:b");
  EXPECT_FALSE(FindCredentials(config, "other.example", "x")->credentials.has_value());
  // A host whose name begins like another's is not that one.
  EXPECT_FALSE(FindCredentials(config, "r.example.evil", "x")->credentials.has_value());
}

TEST(FindCredentials, HelpersComeFirst) {
  const std::string config = R"({"credHelpers": {"r.example": "ecr"}, "credsStore": "pass",
      "auths": {"r.example": {"username": "u", "password": "p"}}})";
  EXPECT_EQ(FindCredentials(config, "r.example", "x")->helper, "ecr");
  EXPECT_EQ(FindCredentials(config, "other.example", "x")->helper, "pass");
}

TEST(FindCredentials, ErrorsDoNotQuoteTheFile) {
  const auto bad = FindCredentials(R"({"auths": {"h.x": {"auth": "c2VjcmV0"}}})", "h.x", "r");
  EXPECT_THAT(bad, StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("base64")));
  EXPECT_THAT(std::string(bad.status().message()), Not(HasSubstr("secret")));
}

TEST(AskCredentialHelper, OnlyInstalledOnesWithPlainNamesAreRun) {
  EXPECT_THAT(AskCredentialHelper("../../bin/sh", "h"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("name")));
  EXPECT_THAT(AskCredentialHelper("not-there-at-all", "h"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("not installed")));
}

}  // namespace
}  // namespace jenkins_agent
