"""report.html: one offline file that shows a run, or a comparison of runs, to other people."""
