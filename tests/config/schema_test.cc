// Nomad's schema and the README's tables, both made from the option tables.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "driver/config/hclspec.h"
#include "driver/config/readme.h"

namespace jenkins_agent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::StartsWith;

// "type" or "type = default" of each attribute; the members of a block as block.member.
using Attributes = std::map<std::string, std::string>;

std::string AttributeText(const std::string& name, const hclspec::Attr& attribute) {
  EXPECT_EQ(attribute.name(), name);
  EXPECT_FALSE(attribute.required()) << name;
  return attribute.type();
}

void Collect(const std::string& prefix, const hclspec::Spec& spec, Attributes& found) {
  ASSERT_TRUE(spec.has_object());
  for (const auto& [name, member] : spec.object().attributes()) {
    if (member.has_block_value()) {
      EXPECT_EQ(member.block_value().name(), name);
      EXPECT_FALSE(member.block_value().required());
      found[prefix + name] = "block";
      Collect(absl::StrCat(prefix, name, "."), member.block_value().nested(), found);
    } else if (member.has_block_list()) {
      EXPECT_EQ(member.block_list().name(), name);
      found[prefix + name] = "blocks";
      Collect(absl::StrCat(prefix, name, "."), member.block_list().nested(), found);
    } else if (member.has_default_()) {
      // The name has to be explicit inside Default (nomad-driver-protocol.md 3.1).
      ASSERT_TRUE(member.default_().primary().has_attr()) << name;
      ASSERT_TRUE(member.default_().default_().has_literal()) << name;
      found[prefix + name] = absl::StrCat(AttributeText(name, member.default_().primary().attr()),
                                          " = ", member.default_().default_().literal().value());
    } else {
      ASSERT_TRUE(member.has_attr()) << name;
      found[prefix + name] = AttributeText(name, member.attr());
    }
  }
}

// What Nomad makes of the schema after the wire.
Attributes AttributesOf(const hclspec::Spec& spec) {
  hclspec::Spec received;
  EXPECT_TRUE(received.ParseFromString(spec.SerializeAsString()));
  Attributes found;
  Collect("", received, found);
  return found;
}

TEST(SchemaTest, TaskConfig) {
  EXPECT_THAT(AttributesOf(TaskConfigSpec()),
              ElementsAre(Pair("agent", "block"),                                    //
                          Pair("agent.ca_file", "string"),                           //
                          Pair("agent.direct", "string"),                            //
                          Pair("agent.extra_args", "list(string)"),                  //
                          Pair("agent.instance_identity", "string"),                 //
                          Pair("agent.jar", "string = \"auto\""),                    //
                          Pair("agent.max_age", "string"),                           //
                          Pair("agent.mode", "string = \"reconnect\""),              //
                          Pair("agent.name", "string"),                              //
                          Pair("agent.root_dir", "string = \"/local/agent\""),       //
                          Pair("agent.secret_file", "string"),                       //
                          Pair("agent.tunnel", "string"),                            //
                          Pair("agent.url", "string"),                               //
                          Pair("agent.web_socket", "bool"),                          //
                          Pair("agent.web_socket_headers", "list(map(string))"),     //
                          Pair("args", "list(string)"),                              //
                          Pair("auth", "block"),                                     //
                          Pair("auth.password", "string"),                           //
                          Pair("auth.username", "string"),                           //
                          Pair("cap_add", "list(string)"),                           //
                          Pair("cap_drop", "list(string)"),                          //
                          Pair("class", "string"),                                   //
                          Pair("class_data_sharing", "bool = true"),                 //
                          Pair("class_path", "string"),                              //
                          Pair("command", "string"),                                 //
                          Pair("cpu_hard_limit", "bool = false"),                    //
                          Pair("extra_hosts", "list(string)"),                       //
                          Pair("health", "block"),                                   //
                          Pair("health.controller_grace", "string = \"10m\""),       //
                          Pair("health.enabled", "bool = true"),                     //
                          Pair("health.leftovers", "string = \"durable\""),          //
                          Pair("health.restart", "block"),                           //
                          Pair("health.restart.attempts", "number = 5"),             //
                          Pair("health.restart.delay", "string = \"1s\""),           //
                          Pair("health.restart.interval", "string = \"10m\""),       //
                          Pair("health.restart.max_delay", "string = \"1m\""),       //
                          Pair("health.start_timeout", "string = \"5m\""),           //
                          Pair("health.thread_limit", "number = 0"),                 //
                          Pair("health.wedge_timeout", "string = \"60s\""),          //
                          Pair("hostname", "string"),                                //
                          Pair("image", "string"),                                   //
                          Pair("image_pull_policy", "string = \"if_not_present\""),  //
                          Pair("image_pull_timeout", "string = \"5m\""),             //
                          Pair("io_weight", "number = 0"),                           //
                          Pair("jar_path", "string"),                                //
                          Pair("java_home", "string"),                               //
                          Pair("java_version", "string"),                            //
                          Pair("jvm_options", "list(string)"),                       //
                          Pair("mount", "blocks"),                                   //
                          Pair("mount.bind_options", "block"),                       //
                          Pair("mount.bind_options.propagation", "string"),          //
                          Pair("mount.readonly", "bool = false"),                    //
                          Pair("mount.source", "string"),                            //
                          Pair("mount.target", "string"),                            //
                          Pair("mount.tmpfs_options", "block"),                      //
                          Pair("mount.tmpfs_options.mode", "number = 1023"),         //
                          Pair("mount.tmpfs_options.size", "number"),                //
                          Pair("mount.type", "string"),                              //
                          Pair("network_mode", "string"),                            //
                          Pair("pids_limit", "number = 2048"),                       //
                          Pair("privileged", "bool = false"),                        //
                          Pair("readonly_rootfs", "bool"),                           //
                          Pair("rootfs_size", "number"),                             //
                          Pair("shm_size", "number = 67108864"),                     //
                          Pair("tmp_size", "number"),                                //
                          Pair("ulimit", "list(map(string))"),                       //
                          Pair("userns", "bool = false"),                            //
                          Pair("work_dir", "string")));
}

TEST(SchemaTest, PluginConfig) {
  EXPECT_THAT(
      AttributesOf(PluginConfigSpec()),
      ElementsAre(
          Pair("allow_caps", "list(string)"), Pair("allow_host_paths", "list(string)"),
          Pair("allow_privileged", "bool = false"), Pair("allow_root", "bool = false"),
          Pair("images", "block"), Pair("images.auth_file", "string"), Pair("images.dir", "string"),
          Pair("images.gc", "block"), Pair("images.gc.high_watermark", "number = 85"),
          Pair("images.gc.image", "bool = true"), Pair("images.gc.image_delay", "string = \"3m\""),
          Pair("images.gc.image_max_age", "string = \"0s\""),
          Pair("images.gc.keep_recent", "number = 2"),
          Pair("images.gc.low_watermark", "number = 75"),
          Pair("images.gc.max_store_size", "number = 0"),
          Pair("images.gc.min_free", "number = 5120"), Pair("images.pins", "list(string)"),
          Pair("images.pre_pull", "list(string)"), Pair("images.registry", "blocks"),
          Pair("images.registry.auth", "block"), Pair("images.registry.auth.password", "string"),
          Pair("images.registry.auth.username", "string"),
          Pair("images.registry.ca_file", "string"), Pair("images.registry.host", "string"),
          Pair("images.registry.mirrors", "list(string)"),
          Pair("images.registry.plain_http", "bool = false"), Pair("java_homes", "list(string)"),
          Pair("log_collection", "string = \"nomad\""), Pair("logs", "block"),
          Pair("logs.max_file_size", "number = 10"), Pair("logs.max_files", "number = 10"),
          Pair("metrics", "block"), Pair("metrics.listen", "string"),
          Pair("state_dir", "string = \"/var/lib/nomad-driver-jenkins-agent\"")));
}

TEST(ReadmeTest, TaskTable) {
  const std::string table = TaskOptionTable();
  EXPECT_THAT(table, StartsWith("| option | type | default | meaning |\n|---|---|---|---|\n"
                                "| `agent` | block | – | run an inbound Jenkins agent;"));
  EXPECT_THAT(table, HasSubstr("\n| `agent.url` | string | – | the controller's root URL; "));
  EXPECT_THAT(table, HasSubstr("\n| `agent.root_dir` | string | `\"/local/agent\"` | "));
  EXPECT_THAT(table, HasSubstr("\n| `agent.web_socket_headers` | list(map(string)) | – | "));
  EXPECT_THAT(table, HasSubstr("\n| `mount` | blocks | – | "));
  EXPECT_THAT(table, HasSubstr("\n| `mount.tmpfs_options.mode` | number | `1023` | "));
  EXPECT_THAT(table, HasSubstr("\n| `pids_limit` | number | `2048` | "));
}

TEST(ReadmeTest, PluginTable) {
  EXPECT_THAT(
      PluginOptionTable(),
      StartsWith(
          "| option | type | default | meaning |\n"
          "|---|---|---|---|\n"
          "| `state_dir` | string | `\"/var/lib/nomad-driver-jenkins-agent\"` | where the driver "
          "keeps its state, an absolute path; one Nomad agent per directory |\n"
          "| `log_collection` | string | `\"nomad\"` | who writes the tasks' log files: `nomad`, "
          "or "
          "`driver`, which saves Nomad's log helper process of each task |\n"
          "| `logs` | block | – | size of the log files with `log_collection = \"driver\"`, which "
          "does not see the job's `logs` block |\n"
          "| `logs.max_files` | number | `10` | most files of each stream, 1 to 1000; the oldest "
          "goes "
          "first |\n"
          "| `logs.max_file_size` | number | `10` | most MiB in each file, 1 to 10240 |\n"
          "| `allow_root` | bool | `false` | whether a job may run its program as root |\n"
          "| `allow_privileged` | bool | `false` | whether a job may set `privileged` |\n"
          "| `allow_caps` | list(string) | – | capabilities that a job may name in `cap_add`; "
          "`all` "
          "for "
          "every one |\n"
          "| `allow_host_paths` | list(string) | – | directories or files of the host that a job "
          "may "
          "name as `mount.source`, with all below them |\n"
          "| `java_homes` | list(string) | – | the Java installations to offer, absolute paths; "
          "left out: those in the usual places |\n"
          "| `metrics` | block | – | an endpoint for Prometheus; left out: none |\n"
          "| `metrics.listen` | string | – | address and port (1024 or more) of the endpoint; only "
          "a "
          "port: on the loopback address |\n"
          "| `images` | block | – | the images that are kept on this node |\n"));
}

TEST(ReadmeTest, EveryRowHasFourCells) {
  for (const std::string& table : {TaskOptionTable(), PluginOptionTable()}) {
    for (const absl::string_view row : absl::StrSplit(table, '\n', absl::SkipEmpty())) {
      EXPECT_EQ(std::count(row.begin(), row.end(), '|'), 5) << row;
    }
  }
}

}  // namespace
}  // namespace jenkins_agent
