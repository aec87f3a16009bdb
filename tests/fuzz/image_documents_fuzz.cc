// Names and documents of images, what registries ask for, and what the image worker says. The first
// byte chooses which.
#include <string>

#include "driver/image/challenge.h"
#include "driver/image/image_job.h"
#include "driver/image/image_name.h"
#include "driver/image/manifest.h"
#include "driver/image/reference.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace jenkins_agent;
  if (size == 0) return 0;
  const absl::string_view text(reinterpret_cast<const char*>(data + 1), size - 1);
  switch (data[0] % 5) {
    case 0: {
      const absl::StatusOr<Reference> reference = ParseReference(text);
      if (!reference.ok()) return 0;
      const absl::StatusOr<Reference> again = ParseReference(reference->ToString());
      Require(again.ok() && *again == *reference);
      Require(reference->repository.find("..") == std::string::npos);
      return 0;
    }
    case 1: {
      const auto document = ParseManifestDocument(text, "");
      if (!document.ok()) return 0;
      if (const Index* index = std::get_if<Index>(&*document)) {
        (void)SelectPlatform(*index, HostPlatform());
      } else {
        Require(std::get<Manifest>(*document).layers.size() <= kMaxLayers);
      }
      return 0;
    }
    case 3: {
      Require(ParseChallenges(text).size() <= 8);
      const absl::StatusOr<Token> token = ParseToken(text);
      if (token.ok()) Require(token->value.find_first_of("\r\n ") == std::string::npos);
      return 0;
    }
    case 4: {
      const absl::StatusOr<ImageReport> report = ParseImageReport(text);
      if (report.ok()) Require(ParseImageReport(ImageReportLine(*report)).ok());
      const absl::StatusOr<ImageJob> job = ParseImageJob(text);
      if (job.ok()) Require(job->store[0] == '/' && !job->image.empty());
      const absl::StatusOr<ImageName> name = ParseImageName(text);
      if (!name.ok()) return 0;
      const absl::StatusOr<ImageName> again = ParseImageName(name->ToString());
      Require(again.ok() && *again == *name);
      return 0;
    }
    default: {
      const absl::StatusOr<ImageConfig> config = ParseImageConfig(text);
      if (config.ok()) Require(config->work_dir.empty() || config->work_dir[0] == '/');
      return 0;
    }
  }
}
