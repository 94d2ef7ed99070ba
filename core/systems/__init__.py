"""Whatever writes reports: pairs, files of reports, programs and radiologists in; a report of each study out."""
