#include "driver/plugin/launch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "driver/plugin/socket_path.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using ::testing::HasSubstr;

constexpr char kCookie[] = "e4327c2e01eabfd75a8a67adb114fb34a757d57eee7728d857a8cec6e91a7255";

EnvGetter Env(std::map<std::string, std::string> values) {
  return [values = std::move(values)](const char* name) -> std::optional<std::string> {
    const auto it = values.find(name);
    if (it == values.end()) return std::nullopt;
    return it->second;
  };
}

TEST(LaunchEnvironment, OfNomadIsAccepted) {
  const EnvGetter env =
      Env({{"NOMAD_PLUGIN_MAGIC_COOKIE", kCookie}, {"PLUGIN_PROTOCOL_VERSIONS", "2"}});
  EXPECT_TRUE(LaunchedByNomad(env));
  EXPECT_OK(CheckLaunchEnvironment(env));
}

TEST(LaunchEnvironment, VersionsAreAList) {
  EXPECT_OK(CheckLaunchEnvironment(
      Env({{"NOMAD_PLUGIN_MAGIC_COOKIE", kCookie}, {"PLUGIN_PROTOCOL_VERSIONS", "1, 2,3"}})));
  EXPECT_THAT(CheckLaunchEnvironment(Env(
                  {{"NOMAD_PLUGIN_MAGIC_COOKIE", kCookie}, {"PLUGIN_PROTOCOL_VERSIONS", "12,22"}})),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("'12,22'")));
}

TEST(LaunchEnvironment, OfAPersonHasNoCookie) {
  EXPECT_FALSE(LaunchedByNomad(Env({{"PLUGIN_PROTOCOL_VERSIONS", "2"}})));
  EXPECT_THAT(CheckLaunchEnvironment(Env({})),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("plugin_dir")));
}

TEST(LaunchEnvironment, AnotherHostsCookieIsRefused) {
  EXPECT_THAT(
      CheckLaunchEnvironment(
          Env({{"NOMAD_PLUGIN_MAGIC_COOKIE", "vault"}, {"PLUGIN_PROTOCOL_VERSIONS", "2"}})),
      StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("NOMAD_PLUGIN_MAGIC_COOKIE")));
}

TEST(LaunchEnvironment, TlsIsRefused) {
  EXPECT_THAT(CheckLaunchEnvironment(Env({{"NOMAD_PLUGIN_MAGIC_COOKIE", kCookie},
                                          {"PLUGIN_PROTOCOL_VERSIONS", "2"},
                                          {"PLUGIN_CLIENT_CERT", "-----BEGIN"}})),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("PLUGIN_CLIENT_CERT")));
}

TEST(SocketPath, PrefersTheHostsDirectory) {
  EXPECT_EQ(*SocketPath(Env({}), 0xabc), "/tmp/plugin0000000000000abc");
  EXPECT_EQ(*SocketPath(Env({{"TMPDIR", "/t"}}), 1), "/t/plugin0000000000000001");
  EXPECT_EQ(*SocketPath(Env({{"TMPDIR", "/t"}, {"PLUGIN_UNIX_SOCKET_DIR", "/s"}}), 1),
            "/s/plugin0000000000000001");
}

TEST(SocketPath, RefusesWhatNoSocketCanHave) {
  EXPECT_OK(SocketPath(Env({{"TMPDIR", "/" + std::string(83, 'x')}}), 1));  // 107 bytes
  EXPECT_THAT(SocketPath(Env({{"TMPDIR", "/" + std::string(84, 'x')}}), 1),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("shorter TMPDIR")));
  EXPECT_THAT(SocketPath(Env({{"TMPDIR", "tmp"}}), 1),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("TMPDIR 'tmp'")));
}

TEST(HandshakeLine, HasSixFieldsUnlessASeventhIsAskedFor) {
  EXPECT_EQ(HandshakeLine(Env({}), "/tmp/p"), "1|2|unix|/tmp/p|grpc|\n");
  EXPECT_EQ(HandshakeLine(Env({{"PLUGIN_MULTIPLEX_GRPC", ""}}), "/tmp/p"),
            "1|2|unix|/tmp/p|grpc|\n");
  EXPECT_EQ(HandshakeLine(Env({{"PLUGIN_MULTIPLEX_GRPC", "true"}}), "/tmp/p"),
            "1|2|unix|/tmp/p|grpc||false\n");
}

}  // namespace
}  // namespace jenkins_agent
