// What doctor makes of what it sees.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
#include "driver/tools/host_checks.h"
#include "driver/tools/nomad_checks.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace jenkins_agent {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Json = nlohmann::json;

HostView GoodHost() {
  HostView view;
  view.root = true;
  view.kernel = "6.1.0-28-amd64";
  view.machine = "x86_64";
  view.cgroups = cgroups::Version::kV2;
  view.swap_bytes = 0;
  view.clock_synchronised = true;
  view.javas = {{"/usr/lib/jvm/17", 17, "17.0.15", ""}};
  view.state_dir = "/var/lib/x";
  view.unit = {{"KillMode", "process"}, {"TasksMax", "infinity"}};
  return view;
}

// "name: grade" of all that is not ok.
std::vector<std::string> Trouble(const Findings& findings) {
  std::vector<std::string> trouble;
  for (const Finding& finding : findings) {
    EXPECT_EQ(finding.fix.empty(), finding.grade == Finding::kOk) << finding.name;
    EXPECT_NE(finding.found, "") << finding.name;
    if (finding.grade == Finding::kOk) continue;
    trouble.push_back(
        absl::StrCat(finding.name, finding.grade == Finding::kFail ? ": fail" : ": warn"));
  }
  return trouble;
}

using Change = void (*)(HostView&);
struct HostCase {
  const char* trouble;
  Change change;
};

class HostCheck : public testing::TestWithParam<HostCase> {};

TEST_P(HostCheck, IsNamedWithItsFix) {
  HostView view = GoodHost();
  GetParam().change(view);
  EXPECT_THAT(Trouble(CheckHost(view)), testing::ElementsAre(GetParam().trouble));
}

INSTANTIATE_TEST_SUITE_P(
    Every, HostCheck,
    testing::Values(
        HostCase{"root: fail", [](HostView& view) { view.root = false; }},
        HostCase{"kernel: fail", [](HostView& view) { view.kernel = "5.10.0-1"; }},
        HostCase{"kernel: fail", [](HostView& view) { view.kernel = "6.0.12"; }},
        HostCase{"kernel: fail", [](HostView& view) { view.machine = "aarch64"; }},
        HostCase{"cgroups: fail", [](HostView& view) { view.cgroups = cgroups::Version::kNone; }},
        HostCase{"cgroups: fail", [](HostView& view) { view.missing_controllers = {"memory"}; }},
        HostCase{"swap: warn", [](HostView& view) { view.swap_bytes = 1 << 30; }},
        HostCase{"room: fail", [](HostView& view) { view.load_error = "host threads 9 of 9"; }},
        HostCase{"state directory: fail",
                 [](HostView& view) { view.state_dir_error = "is on a full disk"; }},
        HostCase{"java: warn", [](HostView& view) { view.javas.clear(); }},
        HostCase{"clock: warn", [](HostView& view) { view.clock_synchronised = false; }},
        HostCase{"nomad.service: fail", [](HostView& view) { view.unit["KillMode"] = "mixed"; }},
        HostCase{"nomad.service limits: warn",
                 [](HostView& view) { view.unit["TasksMax"] = "4915"; }},
        HostCase{"library: warn",
                 [](HostView& view) { view.missing_libraries = {"libisal.so.2"}; }}));

TEST(HostCheckTest, AGoodHostHasNoTrouble) {
  EXPECT_THAT(Trouble(CheckHost(GoodHost())), IsEmpty());
  HostView newer = GoodHost();
  newer.kernel = "7.0.1+";
  newer.swap_bytes = 1 << 30;
  newer.counts_swap = true;
  newer.unit.clear();
  EXPECT_THAT(Trouble(CheckHost(newer)), IsEmpty());
}

TEST(HostCheckTest, ThisHostIsLookedAt) {
  const HostView view = LookAtHost("/nonexistent/state", {});
  EXPECT_NE(view.kernel, "");
  EXPECT_EQ(view.machine, "x86_64");
  EXPECT_TRUE(view.swap_bytes.has_value());
  EXPECT_FALSE(view.plugin.has_value());
}

TEST(HostCheckTest, PropertiesOfAUnit) {
  const auto properties = ParseProperties("LoadState=loaded\nExecStart={ a=b }\nEmpty=\n");
  EXPECT_EQ(properties.at("LoadState"), "loaded");
  EXPECT_EQ(properties.at("ExecStart"), "{ a=b }");
  EXPECT_EQ(properties.at("Empty"), "");
}

TEST(FindingTest, TextIsAlignedWithTheFixBelow) {
  const Findings findings = {Ok("root", "yes"),
                             Fail("state directory", "full\x1b[2J", "make room")};
  EXPECT_EQ(FindingsText(findings),
            "RESULT  CHECK            FOUND\n"
            "ok      root             yes\n"
            "fail    state directory  full?[2J\n"
            "                         -> make room\n"
            "\n"
            "2 checks: 1 failed, 0 with a warning\n");
  EXPECT_TRUE(AnyFailed(findings));
}

TEST(FindingTest, JsonHasEveryField) {
  const Json json = Json::parse(FindingsJson({Warn("swap", "on", "off")}));
  EXPECT_EQ(json["checks"][0],
            (Json{{"name", "swap"}, {"result", "warn"}, {"found", "on"}, {"fix", "off"}}));
  EXPECT_EQ(json["warned"], 1);
  EXPECT_EQ(json["failed"], 0);
}

NomadNodeFacts GoodNode() {
  NomadNodeFacts node;
  node.status = "ready";
  node.eligible = true;
  node.reserves_something = true;
  node.driver_detected = true;
  node.driver_healthy = true;
  node.cgroups = "1";
  return node;
}

TEST(NomadCheckTest, WhatANodeCanLack) {
  EXPECT_THAT(Trouble(CheckNodeFacts(GoodNode(), "1")), IsEmpty());
  NomadNodeFacts node = GoodNode();
  node.driver_detected = false;
  node.status = "down";
  node.reserves_something = false;
  EXPECT_THAT(
      Trouble(CheckNodeFacts(node, "2")),
      testing::ElementsAre("driver: fail", "node: fail", "cgroup mode: fail", "reserved: warn"));
  node = GoodNode();
  node.driver_healthy = false;
  node.driver_text = "state_dir is on a full disk";
  node.eligible = false;
  const Findings findings = CheckNodeFacts(node, "1");
  EXPECT_THAT(Trouble(findings), testing::ElementsAre("driver: fail", "node: warn"));
  EXPECT_THAT(findings[0].found, HasSubstr("full disk"));
}

TEST(NomadCheckTest, ThePluginsFile) {
  const TempDir dir;
  NomadAgentFacts agent;
  agent.client = true;
  agent.plugin_dir = dir.path();
  const std::string file = dir.path() + "/nomad-driver-jenkins-agent";
  const auto trouble = [&agent] { return Trouble(CheckAgentFacts(agent)); };
  EXPECT_THAT(trouble(), testing::ElementsAre("plugin file: fail"));
  ASSERT_OK(WriteFileAtomic(file, "x", 0644));
  EXPECT_THAT(CheckAgentFacts(agent).back().found, HasSubstr("is not executable"));
  ASSERT_OK(WriteFileAtomic(file, "x", 0755));
  agent.plugin_dir = "plugins";
  EXPECT_THAT(CheckAgentFacts(agent).back().found, HasSubstr("is relative"));
  agent.client = false;
  EXPECT_THAT(trouble(), testing::ElementsAre("nomad client: warn"));
}

TEST(NomadCheckTest, NullsAndNonsenseAreNoCrash) {
  for (const char* text : {"{}", R"({"config":null,"stats":null})",
                           R"({"config":{"Plugins":null,"Client":7,"Version":[]}})",
                           R"({"config":{"Plugins":[null,{"Name":5}]}})"}) {
    ASSERT_OK_AND_ASSIGN(const NomadAgentFacts agent, ParseAgentSelf(text));
    EXPECT_EQ(agent.plugin_dir, "");
  }
  EXPECT_FALSE(ParseAgentSelf("[]").ok());
  EXPECT_FALSE(ParseNode("<html>").ok());
  ASSERT_OK_AND_ASSIGN(const NomadNodeFacts node,
                       ParseNode(R"({"Drivers":{"jenkins-agent":null},"ReservedResources":[]})"));
  EXPECT_FALSE(node.driver_detected);
}

// Answers by path; what is not in `answers` is refused.
class FakeClient final : public nomad::Client {
 public:
  std::map<std::string, std::string> answers;
  absl::Status refusal = absl::PermissionDeniedError("Permission denied");

  const nomad::Endpoint& endpoint() const override { return endpoint_; }
  absl::StatusOr<nomad::Answer> Get(const std::string& path, const nomad::Query&) override {
    const auto it = answers.find(path);
    if (it == answers.end()) return refusal;
    return nomad::Answer{it->second, ""};
  }
  absl::StatusOr<nomad::Answer> Put(const std::string&, const std::string&) override {
    return absl::UnimplementedError("");
  }
  absl::Status GetPages(const std::string&, const nomad::Query&, int,
                        const std::function<absl::Status(const std::string&)>&) override {
    return absl::UnimplementedError("");
  }
  std::vector<absl::StatusOr<nomad::Answer>> GetAll(const std::vector<std::string>&) override {
    return {};
  }
  absl::Status Stream(const std::string&, const nomad::Query&, std::chrono::milliseconds,
                      const std::function<absl::Status(absl::string_view)>&,
                      const std::function<absl::Status()>&) override {
    return absl::UnimplementedError("");
  }

 private:
  nomad::Endpoint endpoint_;
};

TEST(NomadClientTest, RightsThatAreMissingAreNamed) {
  FakeClient client;
  EXPECT_THAT(Trouble(CheckNomad(client, "1").findings),
              testing::ElementsAre("right agent:read: warn", "right node:read: warn",
                                   "right namespace:list-jobs: warn",
                                   "right namespace:read-job: warn", "right operator:read: warn"));
}

TEST(NomadClientTest, AnAgentThatDoesNotAnswerIsOneWarning) {
  FakeClient client;
  client.refusal = absl::UnavailableError("http://127.0.0.1:4646: Connection refused");
  EXPECT_THAT(Trouble(CheckNomad(client, "1").findings), testing::ElementsAre("nomad agent: warn"));
}

TEST(NomadClientTest, TheStateDirectoryIsAsNomadsConfigurationHasIt) {
  FakeClient client;
  client.answers["/v1/agent/self"] = R"({"config":{"Version":{"Version":"1.11.3"},"Plugins":[
      {"Name":"nomad-driver-jenkins-agent","Config":{"state_dir":"/srv/agents"}}]}})";
  client.answers["/v1/operator/scheduler/configuration"] =
      R"({"SchedulerConfig":{"MemoryOversubscriptionEnabled":true}})";
  const NomadChecks checks = CheckNomad(client, "1");
  EXPECT_EQ(checks.state_dir, "/srv/agents");
  EXPECT_THAT(checks.findings.front().found, HasSubstr("1.11.3"));
  EXPECT_EQ(checks.findings.back().grade, Finding::kOk) << "oversubscription";
}

TEST(NomadCheckTest, TlsFilesThatCannotBeUsed) {
  const TempDir dir;
  nomad::Endpoint endpoint;
  EXPECT_THAT(CheckTlsFiles(endpoint, 0), IsEmpty());
  endpoint.ca_file = dir.path() + "/none.pem";
  endpoint.client_cert = dir.path() + "/text.pem";
  endpoint.client_key = dir.path() + "/none.key";
  ASSERT_OK(WriteFileAtomic(endpoint.client_cert, "no certificate"));
  EXPECT_THAT(Trouble(CheckTlsFiles(endpoint, 0)),
              testing::ElementsAre("NOMAD_CACERT: fail", "NOMAD_CLIENT_CERT: fail",
                                   "NOMAD_CLIENT_KEY: fail"));
}

}  // namespace
}  // namespace jenkins_agent
