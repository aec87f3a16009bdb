// What a job says of its image, and the operator's `images { }`. Values, with their option tables
// and the checks that need no knowledge of image names. Pure.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "driver/config/options.h"

namespace jenkins_agent {

inline constexpr char kPullIfNotPresent[] = "if_not_present";
inline constexpr char kPullAlways[] = "always";
inline constexpr char kPullNever[] = "never";

// Never in a state, a command line, an environment or a log.
struct ImageAuth {
  bool present = false;
  std::string username = "";
  std::string password = "";
};

// Of a job; `image` is empty when it runs on the host's programs.
struct ImageBlock {
  std::string image = "";
  std::string pull_policy = kPullIfNotPresent;
  std::string pull_timeout = "5m";
  ImageAuth auth = {};
};

// One registry of the operator's.
struct RegistryBlock {
  std::string host = "";
  std::vector<std::string> mirrors = {};
  std::string ca_file = "";
  bool plain_http = false;
  ImageAuth auth = {};
};

struct ImageGcBlock {
  bool present = false;
  bool enabled = true;
  std::string image_delay = "3m";
  std::string image_max_age = "0s";
  int64_t high_watermark = 85;  // percent
  int64_t low_watermark = 75;
  int64_t min_free = 5120;     // MiB
  int64_t max_store_size = 0;  // MiB
  int64_t keep_recent = 2;
};

struct ImagesBlock {
  bool present = false;
  std::string dir = "";  // empty: below state_dir
  std::string auth_file = "";
  std::vector<std::string> pins = {};
  std::vector<std::string> pre_pull = {};
  ImageGcBlock gc = {};
  std::vector<RegistryBlock> registries = {};
};

// The rows point into the argument.
std::vector<Option> OptionsFor(ImageBlock& image);
Option ImagesOption(ImagesBlock& images);

// Errors start with the option's path.
absl::Status ValidateImage(const ImageBlock& image);
absl::Status ValidateImages(const ImagesBlock& images);

// Of a value that was checked.
std::chrono::milliseconds ImageDuration(const std::string& text);

}  // namespace jenkins_agent
